package live

import (
	"context"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/sillar-go/sillar/examples/shop/internal/platform"
)

// edge is a way between two parts of the shop, by their names.
type edge struct{ From, To string }

// ID is that of the line in the page.
func (e edge) ID() string { return "e-" + e.From + "-" + e.To }

// flow counts what went over an edge.
type flow struct{ ok, bad float64 }

// reading is what the meters of one service say at a moment.
type reading struct {
	requests, failed float64
	buckets          map[float64]float64 // requests by the bound that their duration stayed under
	flows            map[edge]flow
	breakers         map[edge]float64 // 0 closed, 1 half-open, 2 open
	duplicates       float64
	pending, lag     float64
	groups           []string
}

// read takes a service's meters as they are, from its registry in this process.
func read(s *platform.Service) (reading, error) {
	r := reading{buckets: map[float64]float64{}, flows: map[edge]flow{}, breakers: map[edge]float64{}}
	families, err := s.Tel.Gatherer.Gather()
	if err != nil {
		return r, err
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			r.take(s.Name, f.GetName(), labels(m), m)
		}
	}
	return r, nil
}

func labels(m *dto.Metric) map[string]string {
	out := make(map[string]string, len(m.GetLabel()))
	for _, l := range m.GetLabel() {
		out[l.GetName()] = l.GetValue()
	}
	return out
}

// apart are endpoints that are not part of the shop's traffic: probes, meters, and this page.
func apart(endpoint string) bool {
	return endpoint == "/" || endpoint == "/health" || endpoint == "/ready" || endpoint == "/metrics" ||
		strings.HasPrefix(endpoint, "/live/") || strings.HasPrefix(endpoint, "/{$}")
}

func (r *reading) take(service, name string, l map[string]string, m *dto.Metric) {
	count := m.GetCounter().GetValue()
	switch name {
	case "http_requests_total":
		if !apart(l["endpoint"]) {
			r.requests += count
			if strings.HasPrefix(l["status"], "5") {
				r.failed += count
			}
		}
	case "http_request_duration_seconds":
		if !apart(l["endpoint"]) {
			for _, b := range m.GetHistogram().GetBucket() {
				r.buckets[b.GetUpperBound()] += float64(b.GetCumulativeCount())
			}
			r.buckets[math.Inf(1)] += float64(m.GetHistogram().GetSampleCount())
		}
	case "sillar_gateway_duration_seconds":
		r.add(edge{service, strings.TrimPrefix(l["http_route"], "/")}, float64(m.GetHistogram().GetSampleCount()),
			strings.HasPrefix(l["http_response_status_code"], "5"))
	case "sillar_breaker_calls_total":
		out := l["breaker_outcome"]
		r.add(edge{service, peer(l["breaker_name"])}, count, out != "success" && out != "ignore")
	case "sillar_breaker_state":
		r.breakers[edge{service, peer(l["breaker_name"])}] = m.GetGauge().GetValue()
	case "sillar_outbox_relayed_total":
		r.add(edge{service, "broker"}, count, l["outcome"] != "published")
	case "sillar_outbox_pending":
		r.pending += m.GetGauge().GetValue()
	case "sillar_outbox_lag_seconds":
		r.lag = max(r.lag, m.GetGauge().GetValue())
	case "sillar_messaging_handled_total":
		r.add(edge{"broker", service}, count, l["outcome"] == "retry" || l["outcome"] == "dead")
		if l["outcome"] == "duplicate" {
			r.duplicates += count
		}
		if !slices.Contains(r.groups, l["group"]) {
			r.groups = append(r.groups, l["group"])
		}
	}
}

// peer is the service that a breaker guards: it is named payments/127.0.0.1:8004, or users-grpc/127.0.0.1:50051.
func peer(breaker string) string {
	name, _, _ := strings.Cut(breaker, "/")
	return strings.TrimSuffix(name, "-grpc")
}

func (r *reading) add(e edge, n float64, bad bool) {
	f := r.flows[e]
	if bad {
		f.bad += n
	} else {
		f.ok += n
	}
	r.flows[e] = f
}

// keptPoints is how many points a sparkline has, one a reading.
const keptPoints = 90

// series are the points of a service's sparklines, the newest last.
type series struct {
	rate, errors, p95 []float64 // a second, a second, milliseconds
}

func push(list []float64, v float64) []float64 {
	if len(list) == keptPoints {
		list = append(list[:0], list[1:]...)
	}
	return append(list, v)
}

// figures follow the meters of all services.
type figures struct {
	services []*platform.Service
	at       time.Time
	last     map[string]reading
	series   map[string]*series
	health   map[string]string
	checks   map[string]map[string]string // of each service: check by name
	written  map[string]time.Time         // when a store was written last
	moved    map[edge]flow                // since the reading before
	opened   map[edge]time.Time           // when a breaker was first seen open
}

func newFigures(services []*platform.Service) *figures {
	f := &figures{services: services, series: map[string]*series{}, written: map[string]time.Time{},
		opened: map[edge]time.Time{}}
	for _, s := range services {
		f.series[s.Name] = &series{}
	}
	return f
}

// update reads all meters.
func (f *figures) update(ctx context.Context, now time.Time) {
	f.compareReadings(ctx, now)
	open := f.open()
	for e, state := range open {
		if _, known := f.opened[e]; state == "open" && !known {
			f.opened[e] = now
		}
	}
	maps.DeleteFunc(f.opened, func(e edge, _ time.Time) bool { return open[e] != "open" })
}

// compareReadings takes new readings and compares them with the ones before.
func (f *figures) compareReadings(ctx context.Context, now time.Time) {
	elapsed := now.Sub(f.at).Seconds()
	first := f.at.IsZero() || elapsed > 30 // without viewers for a while there is no recent reading to compare with
	before := f.last
	f.at, f.last, f.moved = now, map[string]reading{}, map[edge]flow{}
	f.health, f.checks = map[string]string{}, map[string]map[string]string{}
	for _, s := range f.services {
		r, err := read(s)
		if err != nil {
			s.Log.WarnContext(ctx, "the meters cannot be read", "error", err)
			r = before[s.Name]
		}
		f.last[s.Name] = r
		rep := s.Health.Report(ctx)
		f.health[s.Name], f.checks[s.Name] = rep.Status, map[string]string{}
		for _, c := range rep.Checks {
			f.checks[s.Name][c.Name] = c.Status
		}
		if at := storeWritten(s.DB); !at.Equal(f.written[s.Name]) {
			if !first {
				f.moved[edge{s.Name, s.Name + "-store"}] = flow{ok: 1}
			}
			f.written[s.Name] = at
		}
		if !first {
			f.compare(s.Name, before[s.Name], r, elapsed)
		}
	}
}

func (f *figures) compare(name string, before, now reading, elapsed float64) {
	for e, n := range now.flows {
		was := before.flows[e]
		if d := (flow{n.ok - was.ok, n.bad - was.bad}); d.ok > 0 || d.bad > 0 {
			f.moved[e] = d
		}
	}
	s := f.series[name]
	s.rate = push(s.rate, max(now.requests-before.requests, 0)/elapsed)
	s.errors = push(s.errors, max(now.failed-before.failed, 0)/elapsed)
	s.p95 = push(s.p95, 1000*quantile(0.95, before.buckets, now.buckets))
}

// quantile is that of what came between two readings of a histogram, NaN when nothing did. Inside a bucket all values
// count as spread evenly.
func quantile(q float64, before, now map[float64]float64) float64 {
	bounds := make([]float64, 0, len(now))
	for b := range now {
		bounds = append(bounds, b)
	}
	slices.Sort(bounds)
	total := now[math.Inf(1)] - before[math.Inf(1)]
	if total <= 0 {
		return math.NaN()
	}
	var lower, below float64
	for _, b := range bounds {
		n := now[b] - before[b]
		if n >= q*total {
			if math.IsInf(b, 1) || n == below {
				return lower
			}
			return lower + (b-lower)*(q*total-below)/(n-below)
		}
		lower, below = b, n
	}
	return lower
}

// storeWritten is when a SQLite database was written last: each commit goes to its write-ahead log.
func storeWritten(dsn string) time.Time {
	file, ok := strings.CutPrefix(dsn, "sqlite:")
	if !ok {
		return time.Time{}
	}
	info, err := os.Stat(file + "-wal")
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// open are the breakers that are not closed, by edge.
func (f *figures) open() map[edge]string {
	out := map[edge]string{}
	for _, r := range f.last {
		for e, state := range r.breakers {
			switch state {
			case 1:
				out[e] = "half-open"
			case 2:
				out[e] = "open"
			}
		}
	}
	return out
}
