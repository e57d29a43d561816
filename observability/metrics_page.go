package observability

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/push"
	dto "github.com/prometheus/client_model/go"
)

// MetricsHandler serves the metrics in Prometheus' formats. Requests to it are neither counted nor logged. A metric
// that cannot be served, because its name or labels contradict another's, is left out, logged once and counted in
// promhttp_metric_handler_errors_total; all others are served.
func (t *Telemetry) MetricsHandler() http.Handler {
	inner := promhttp.HandlerFor(scrapable{t.Gatherer}, promhttp.HandlerOpts{
		EnableOpenMetrics: true, ErrorLog: t.promLog, ErrorHandling: promhttp.ContinueOnError, Registry: t.Registerer,
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if q := requestFrom(r.Context()); q != nil {
			q.mu.Lock()
			q.silent = true
			q.mu.Unlock()
		}
		inner.ServeHTTP(w, r)
	})
}

// scrapable leaves out histograms and summaries with a label of a name that the formats give each of their lines:
// Prometheus refuses the whole page for a line with one label twice.
type scrapable struct{ prometheus.Gatherer }

// Gather implements prometheus.Gatherer.
func (g scrapable) Gather() ([]*dto.MetricFamily, error) {
	families, err := g.Gatherer.Gather()
	errs := prometheus.MultiError{}
	errs.Append(err)
	for _, f := range families {
		own := map[dto.MetricType]string{dto.MetricType_HISTOGRAM: "le", dto.MetricType_SUMMARY: "quantile"}[f.GetType()]
		if own == "" {
			continue
		}
		before := len(f.Metric)
		f.Metric = slices.DeleteFunc(slices.Clone(f.Metric), func(m *dto.Metric) bool {
			return slices.ContainsFunc(m.Label, func(l *dto.LabelPair) bool { return l.GetName() == own })
		})
		if len(f.Metric) < before {
			errs.Append(fmt.Errorf("collected metric %q has a label %q of its own", f.GetName(), own))
		}
	}
	families = slices.DeleteFunc(families, func(f *dto.MetricFamily) bool { return len(f.Metric) == 0 })
	return families, errs.MaybeUnwrap()
}

// promLog logs the errors of scrapes, once for each metric: they come with every scrape.
type promLog struct {
	log  *slog.Logger
	mu   sync.Mutex
	seen map[string]bool
}

// maxPromErrors bounds the errors that are remembered.
const maxPromErrors = 100

// Println implements promhttp.Logger.
func (p *promLog) Println(v ...any) {
	text := fmt.Sprint(v...)
	metric := text // which of the two that conflict is named changes from scrape to scrape
	if _, rest, ok := strings.Cut(text, "collected metric "); ok {
		metric = strings.Trim(strings.SplitN(rest, " ", 2)[0], `"`)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.seen[metric] || len(p.seen) >= maxPromErrors {
		return
	}
	if p.seen == nil {
		p.seen = map[string]bool{}
	}
	p.seen[metric] = true
	p.log.Error("observability: a metric cannot be served; rename the instrument", "error", text)
}

// Push sends all metrics to a Pushgateway, with the service as the job: for batch jobs, which end before anybody
// scrapes them.
func (t *Telemetry) Push(ctx context.Context, url string) error {
	if err := push.New(url, t.cfg.Service).Gatherer(t.Gatherer).PushContext(ctx); err != nil {
		return fmt.Errorf("observability: push metrics: %w", err)
	}
	return nil
}
