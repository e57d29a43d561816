package observability

import (
	"errors"
	"net/http"
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// metrics are the fixed metrics of every service.
type metrics struct {
	requests   *prometheus.CounterVec
	duration   *prometheus.HistogramVec
	inProgress *prometheus.GaugeVec
	depTime    *prometheus.HistogramVec
	depErrors  *prometheus.CounterVec
	operation  *prometheus.HistogramVec

	mu    sync.RWMutex
	known map[seriesKey]*series
}

// series are those of one kind of request: looking them up by their labels takes as long as all else.
type series struct {
	requests prometheus.Counter
	duration prometheus.Observer
}

type seriesKey struct{ method, endpoint, status string }

// of returns the series of a request. There are as many as those of requests.
func (m *metrics) of(method, endpoint, status string) *series {
	key := seriesKey{method, endpoint, status}
	m.mu.RLock()
	s := m.known[key]
	m.mu.RUnlock()
	if s != nil {
		return s
	}
	s = &series{m.requests.WithLabelValues(method, endpoint, status), m.duration.WithLabelValues(method, endpoint)}
	m.mu.Lock()
	m.known[key] = s
	m.mu.Unlock()
	return s
}

func newMetrics(reg prometheus.Registerer, buckets []float64) (*metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	histogram := func(name, help string, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	}
	m := &metrics{
		known:    map[seriesKey]*series{},
		requests: counter("http_requests_total", "Total number of HTTP requests", "method", "endpoint", "status"),
		duration: histogram("http_request_duration_seconds", "HTTP request duration in seconds", "method", "endpoint"),
		inProgress: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "http_requests_in_progress", Help: "Number of HTTP requests in progress"}, []string{"method"}),
		depTime: histogram("dependency_request_duration_seconds", "Dependency request duration in seconds",
			"dependency_name", "operation", "status"),
		depErrors: counter("dependency_errors_total", "Total number of dependency errors",
			"dependency_name", "operation", "error_type"),
		operation: histogram("business_operation_duration_seconds", "Business operation duration in seconds", "operation"),
	}
	var errs []error
	for _, c := range []prometheus.Collector{
		m.requests, m.duration, m.inProgress, m.depTime, m.depErrors, m.operation,
	} {
		errs = append(errs, reg.Register(c))
	}
	for _, c := range []prometheus.Collector{
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		_ = reg.Register(c) // fails where the registry has them, as the default one does
	}
	return m, errors.Join(errs...)
}

// methodLabel keeps the label from growing with what clients send.
func methodLabel(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
		http.MethodConnect, http.MethodOptions, http.MethodTrace:
		return m
	}
	return "other"
}

var statusText = func() (t [1000]string) {
	for i := range t {
		t[i] = strconv.Itoa(i)
	}
	return t
}()

func statusLabel(code int) string {
	if code < 100 || code >= len(statusText) {
		return "other"
	}
	return statusText[code]
}
