package observability

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/push"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/sillar-go/sillar/internal/correlation"
)

const scope = "github.com/sillar-go/sillar/observability"

// Config says who is observed and where what is seen goes. Service is required.
type Config struct {
	// Service is the service's name, in every log line and span. Required.
	Service string
	// Version of the service. Default none.
	Version string
	// Attributes are further resource attributes of spans.
	Attributes []attribute.KeyValue

	// LogLevel is the least level that is logged; a *slog.LevelVar can change it later. Default Info.
	LogLevel slog.Leveler
	// LogWriter takes the JSON lines, one Write a line. Default os.Stdout.
	LogWriter io.Writer

	// SpanExporters take the spans, package otlp makes them. None: tracing is off, and trace ids from outside are only
	// passed on. They belong to this Telemetry, whose Shutdown ends them: several in one process need exporters of their own.
	SpanExporters []sdktrace.SpanExporter
	// SampleRatio is the part of traces, begun here, that is recorded. Default 1. Negative: none. Traces that were begun
	// elsewhere follow the decision made there.
	SampleRatio float64
	// QueueSize bounds the spans that wait for the exporters; more are dropped. Default 2048.
	QueueSize int

	// Propagator carries ids between services. Default: W3C trace context and the correlation id.
	Propagator propagation.TextMapPropagator
	// PublicEdge is for services that strangers call: a stranger's trace context becomes a link, not a parent, so that
	// nobody outside decides what is sampled, and baggage is dropped.
	PublicEdge bool

	// Buckets of the duration histograms, in seconds. Default prometheus.DefBuckets.
	Buckets []float64
	// QuietPaths are paths whose requests are logged only when they fail. Default /metrics, /health and /ready.
	QuietPaths []string
	// ShutdownTimeout bounds Shutdown when its context has no earlier end. Default 5 s.
	ShutdownTimeout time.Duration
}

// Telemetry is the logs, metrics and traces of one service. Several may live in one process; they share nothing.
type Telemetry struct {
	// Logger writes JSON lines with the ids of the context at their root.
	Logger *slog.Logger
	// TracerProvider makes tracers. With no exporters it records nothing.
	TracerProvider trace.TracerProvider
	// MeterProvider makes instruments that end in Registry.
	MeterProvider metric.MeterProvider
	// Propagator carries ids between services.
	Propagator propagation.TextMapPropagator
	// Registry holds all metrics, and takes the program's own.
	Registry *prometheus.Registry

	cfg      Config
	handler  slog.Handler
	tracer   trace.Tracer
	fields   []string // what the default propagator looks for, beside the correlation id; nil for another one
	metrics  *metrics
	shutdown []func(context.Context) error
	stopped  atomic.Bool
}

// New makes a Telemetry. It dials nothing and touches nothing global.
func New(_ context.Context, cfg Config) (*Telemetry, error) {
	if cfg.Service == "" {
		return nil, errors.New("observability: Config.Service is required")
	}
	if cfg.LogWriter == nil {
		cfg.LogWriter = os.Stdout
	}
	var fields []string
	if cfg.Propagator == nil {
		cfg.Propagator = correlation.DefaultPropagator()
		fields = []string{"Traceparent"} // without it there is no trace context
	}
	if cfg.SampleRatio == 0 {
		cfg.SampleRatio = 1
	}
	if cfg.QueueSize <= 0 {
		cfg.QueueSize = sdktrace.DefaultMaxQueueSize
	}
	if cfg.Buckets == nil {
		cfg.Buckets = prometheus.DefBuckets
	}
	if cfg.QuietPaths == nil {
		cfg.QuietPaths = []string{"/metrics", "/health", "/ready"}
	}
	if cfg.ShutdownTimeout <= 0 {
		cfg.ShutdownTimeout = 5 * time.Second
	}
	t := &Telemetry{cfg: cfg, Propagator: cfg.Propagator, Registry: prometheus.NewRegistry(), fields: fields}
	t.handler = NewLogHandler(cfg.LogWriter, LogConfig{Service: cfg.Service, Level: cfg.LogLevel})
	t.Logger = slog.New(t.handler)
	var err error
	if t.metrics, err = newMetrics(t.Registry, cfg.Buckets); err != nil {
		return nil, fmt.Errorf("observability: register metrics: %w", err)
	}
	res := resource.NewSchemaless(slices.Concat([]attribute.KeyValue{
		attribute.String("service.name", cfg.Service), attribute.String("service.version", cfg.Version),
	}, cfg.Attributes)...)
	if err := t.meters(res); err != nil {
		return nil, err
	}
	t.traces(res)
	t.tracer = t.TracerProvider.Tracer(scope)
	return t, nil
}

// Must returns t or panics with err.
func Must(t *Telemetry, err error) *Telemetry {
	if err != nil {
		panic(err)
	}
	return t
}

// Setup is New and InstallGlobals, for programs that are one service.
func Setup(ctx context.Context, cfg Config) (*Telemetry, error) {
	t, err := New(ctx, cfg)
	if err == nil {
		t.InstallGlobals()
	}
	return t, err
}

func (t *Telemetry) meters(res *resource.Resource) error {
	exporter, err := otelprometheus.New(otelprometheus.WithRegisterer(t.Registry), otelprometheus.WithoutScopeInfo())
	if err != nil {
		return fmt.Errorf("observability: make the metrics exporter: %w", err)
	}
	mp := sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter), sdkmetric.WithResource(res))
	t.MeterProvider = mp
	t.shutdown = append(t.shutdown, mp.Shutdown)
	return nil
}

func (t *Telemetry) traces(res *resource.Resource) {
	if len(t.cfg.SpanExporters) == 0 {
		t.TracerProvider = noop.NewTracerProvider()
		return
	}
	opts := []sdktrace.TracerProviderOption{
		sdktrace.WithResource(res),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(t.cfg.SampleRatio))),
	}
	for _, e := range t.cfg.SpanExporters {
		opts = append(opts, sdktrace.WithBatcher(&reporting{SpanExporter: e, log: t.Logger}, sdktrace.WithMaxQueueSize(t.cfg.QueueSize)))
	}
	tp := sdktrace.NewTracerProvider(opts...)
	t.TracerProvider = tp
	t.shutdown = append([]func(context.Context) error{tp.Shutdown}, t.shutdown...)
}

// reporting tells the log of exporters that fail, once a minute at most, instead of OTel's global error handler.
type reporting struct {
	sdktrace.SpanExporter
	log  *slog.Logger
	next atomic.Int64 // when the log may be told again, Unix nanoseconds
	lost atomic.Int64 // spans lost since it was told
}

// ExportSpans implements sdktrace.SpanExporter.
func (r *reporting) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := r.SpanExporter.ExportSpans(ctx, spans)
	if err == nil {
		return nil
	}
	lost := r.lost.Add(int64(len(spans)))
	now, next := time.Now(), r.next.Load()
	if now.UnixNano() >= next && r.next.CompareAndSwap(next, now.Add(time.Minute).UnixNano()) {
		r.lost.Add(-lost)
		r.log.Warn("spans could not be exported", "error", err, "lost", lost)
	}
	return nil
}

// InstallGlobals makes t what code without a Telemetry of its own uses: OTel's global providers and propagator, OTel's
// errors, slog's default, and TrackDependency, TrackOperation and Trace where their context carries no Telemetry.
func (t *Telemetry) InstallGlobals() {
	global.Store(t)
	otel.SetTracerProvider(t.TracerProvider)
	otel.SetMeterProvider(t.MeterProvider)
	otel.SetTextMapPropagator(t.Propagator)
	var next atomic.Int64
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		now, due := time.Now(), next.Load()
		if now.UnixNano() >= due && next.CompareAndSwap(due, now.Add(time.Minute).UnixNano()) {
			t.Logger.Warn("OpenTelemetry reports an error", "error", err)
		}
	}))
	slog.SetDefault(t.Logger)
}

// Shutdown hands what is still queued to the exporters and stops them, within Config.ShutdownTimeout. It comes last,
// when nothing makes spans any more. A second call does nothing.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	if t.stopped.Swap(true) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, t.cfg.ShutdownTimeout)
	defer cancel()
	var errs []error
	for _, stop := range t.shutdown {
		errs = append(errs, stop(ctx))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("observability: shut down: %w", err)
	}
	return nil
}

// MetricsHandler serves the registry in Prometheus' formats. Requests to it are neither counted nor logged.
func (t *Telemetry) MetricsHandler() http.Handler {
	inner := promhttp.HandlerFor(t.Registry, promhttp.HandlerOpts{EnableOpenMetrics: true, ErrorLog: promLog{t.Logger}})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if q := requestFrom(r.Context()); q != nil {
			q.silent = true
		}
		inner.ServeHTTP(w, r)
	})
}

type promLog struct{ log *slog.Logger }

func (p promLog) Println(v ...any) {
	p.log.Error("metrics could not be served", "error", fmt.Sprint(v...))
}

// Push sends all metrics to a Pushgateway, with the service as the job: for batch jobs, which end before anybody
// scrapes them.
func (t *Telemetry) Push(ctx context.Context, url string) error {
	if err := push.New(url, t.cfg.Service).Gatherer(t.Registry).PushContext(ctx); err != nil {
		return fmt.Errorf("observability: push metrics: %w", err)
	}
	return nil
}
