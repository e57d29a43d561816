package observability

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
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
)

const scope = "github.com/sillar-go/sillar/observability"

// Config names the service and says where its logs, metrics and spans go. Beside it the variables OTEL_SERVICE_NAME,
// OTEL_RESOURCE_ATTRIBUTES, OTEL_PROPAGATORS, OTEL_TRACES_SAMPLER, OTEL_TRACES_SAMPLER_ARG and OTEL_BSP_* of
// OpenTelemetry count where a field is empty; New refuses values that it does not know. Package otlp reads those of
// exporters.
type Config struct {
	// Service is the name of the service, in every log line and span. Default: OTEL_SERVICE_NAME; one of them is required.
	Service string
	// Version of the service. Default: service.version of OTEL_RESOURCE_ATTRIBUTES, else none.
	Version string
	// Attributes are further resource attributes of spans.
	Attributes []attribute.KeyValue

	// LogLevel is the least level that is logged; a *slog.LevelVar can change it later. Default Info.
	LogLevel slog.Leveler
	// LogWriter takes the lines, one Write a line. Default os.Stdout.
	LogWriter io.Writer
	// LogText writes key=value lines, for terminals. Default JSON.
	LogText bool
	// LogReplaceAttr changes, renames or removes what is logged, as LogConfig.ReplaceAttr does. Default none.
	LogReplaceAttr func(groups []string, a slog.Attr) slog.Attr
	// LogHandlers take each record beside LogWriter, as package otlplog does for logs over OTLP. They decide about the
	// level by themselves. Default none.
	LogHandlers []slog.Handler
	// AccessLog returns further fields of the line that a request writes when it has ended. A handler adds its own with
	// AddLogAttrs. Default none.
	AccessLog func(r *http.Request) []slog.Attr

	// Registerer takes all metrics; it may be prometheus.DefaultRegisterer. Each Telemetry needs one of its own, or labels
	// of its own: prometheus.WrapRegistererWith. Metrics stay in it after Shutdown. Default: a new registry.
	Registerer prometheus.Registerer
	// Gatherer is what MetricsHandler and Push read. Default: Registerer, where it is also a Gatherer as a registry is;
	// prometheus.DefaultGatherer otherwise.
	Gatherer prometheus.Gatherer

	// SpanExporters take the spans, package otlp makes them. None: tracing is off, and trace ids from outside are only
	// passed on. They belong to this Telemetry, whose Shutdown ends them: several in one process need exporters of their
	// own.
	SpanExporters []sdktrace.SpanExporter
	// SampleRatio is the part of traces, begun here, that is recorded. Default: OTEL_TRACES_SAMPLER, else 1. Negative:
	// none. Traces that were begun elsewhere follow the decision made there.
	SampleRatio float64
	// Sampler decides in place of SampleRatio. Default none.
	Sampler sdktrace.Sampler
	// QueueSize bounds the spans that wait for each exporter. More are dropped, counted in observability_spans_total and
	// logged. Default: OTEL_BSP_MAX_QUEUE_SIZE, else 2048.
	QueueSize int

	// Propagator carries ids between services. Default: the correlation id and what OTEL_PROPAGATORS names, else W3C trace
	// context.
	Propagator propagation.TextMapPropagator
	// PublicEdge is for services that strangers call: a stranger's trace context becomes a link, not a parent, so that
	// callers do not decide what is sampled, and baggage is dropped.
	PublicEdge bool

	// TrustedProxies are the networks of the proxies in front of the service. For a request from one of them, the client
	// is the last address in X-Forwarded-For that none of them has: in client.address of spans, and in client_address of
	// the access log, which is written where TrustedProxies is set. Default none: the client is the peer of the
	// connection.
	TrustedProxies []netip.Prefix

	// Buckets of the duration histograms, in seconds. Default prometheus.DefBuckets.
	Buckets []float64
	// QuietPaths are paths whose requests are logged only when they fail, and have no span. Default /metrics, /health and
	// /ready.
	QuietPaths []string
	// Filter says which requests have a span, beside those of QuietPaths, which have none. Default: all.
	Filter func(r *http.Request) bool
	// ShutdownTimeout bounds Shutdown when its context has no earlier end. Default 5 s.
	ShutdownTimeout time.Duration
}

// Telemetry is the logs, metrics and traces of one service. Several may live in one process; they share nothing.
type Telemetry struct {
	// Logger writes JSON lines with the ids of the context at their root.
	Logger *slog.Logger
	// TracerProvider makes tracers. With no exporters it records nothing.
	TracerProvider trace.TracerProvider
	// MeterProvider makes instruments that end in Registerer.
	MeterProvider metric.MeterProvider
	// Propagator carries ids between services.
	Propagator propagation.TextMapPropagator
	// Registerer takes the program's own metrics beside those of this package.
	Registerer prometheus.Registerer
	// Gatherer is what MetricsHandler serves.
	Gatherer prometheus.Gatherer

	cfg      Config
	handler  slog.Handler
	tracer   trace.Tracer
	fields   []string // what the default propagator looks for, beside the correlation id; nil for another one
	metrics  *metrics
	shutdown []func(context.Context) error
	stopped  atomic.Bool
	promLog  *promLog
}

// New makes a Telemetry. It dials nothing and touches nothing global.
func New(ctx context.Context, cfg Config) (*Telemetry, error) {
	fields, err := cfg.setDefaults()
	if err != nil {
		return nil, err
	}
	t := &Telemetry{
		cfg:        cfg,
		Propagator: cfg.Propagator,
		Registerer: cfg.Registerer,
		Gatherer:   cfg.Gatherer,
		fields:     fields,
	}
	t.handler = NewLogHandler(cfg.LogWriter, LogConfig{
		Service:     cfg.Service,
		Level:       cfg.LogLevel,
		Text:        cfg.LogText,
		ReplaceAttr: cfg.LogReplaceAttr,
	})
	if len(cfg.LogHandlers) > 0 {
		t.handler = slog.NewMultiHandler(slices.Insert(slices.Clone(cfg.LogHandlers), 0, t.handler)...)
	}
	t.Logger = slog.New(t.handler)
	t.promLog = &promLog{log: t.Logger}
	if t.metrics, err = newMetrics(t.Registerer, cfg.Buckets); err != nil {
		return nil, fmt.Errorf("observability: register metrics: %w", err)
	}
	res, err := newResource(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if err := t.meters(res); err != nil {
		return nil, err
	}
	if err := t.traces(res); err != nil {
		return nil, err
	}
	t.tracer = t.TracerProvider.Tracer(scope)
	return t, nil
}

// setDefaults fills in what is not set, from the environment where OpenTelemetry names a variable. It returns the
// fields of the propagators.
func (cfg *Config) setDefaults() (fields []string, err error) {
	cfg.Service = cmp.Or(cfg.Service, os.Getenv("OTEL_SERVICE_NAME"))
	if cfg.Service == "" {
		return nil, errors.New("observability: Config.Service, or OTEL_SERVICE_NAME, is required")
	}
	if cfg.LogWriter == nil {
		cfg.LogWriter = os.Stdout
	}
	if cfg.Propagator == nil {
		if cfg.Propagator, fields, err = propagatorFromEnvironment(); err != nil {
			return nil, err
		}
	}
	if cfg.QueueSize <= 0 {
		n, err := queueSizeFromEnvironment()
		if err != nil {
			return nil, err
		}
		cfg.QueueSize = cmp.Or(n, sdktrace.DefaultMaxQueueSize)
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
	if cfg.Registerer == nil {
		cfg.Registerer = prometheus.NewRegistry()
	}
	if cfg.Gatherer == nil {
		g, ok := cfg.Registerer.(prometheus.Gatherer)
		if !ok {
			g = prometheus.DefaultGatherer
		}
		cfg.Gatherer = g
	}
	return fields, nil
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
	exporter, err := otelprometheus.New(otelprometheus.WithRegisterer(t.Registerer), otelprometheus.WithoutScopeInfo())
	if err != nil {
		return fmt.Errorf("observability: make the metrics exporter: %w", err)
	}
	mp := sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter), sdkmetric.WithResource(res))
	t.MeterProvider = mp
	t.shutdown = append(t.shutdown, mp.Shutdown)
	return nil
}

// newResource describes the service: Config before the environment, and the SDK.
func newResource(ctx context.Context, cfg Config) (*resource.Resource, error) {
	own := []attribute.KeyValue{attribute.String("service.name", cfg.Service)}
	if cfg.Version != "" {
		own = append(own, attribute.String("service.version", cfg.Version))
	}
	res, err := resource.New(
		ctx, resource.WithTelemetrySDK(), resource.WithFromEnv(), resource.WithAttributes(append(own, cfg.Attributes...)...),
	)
	if err != nil {
		return nil, fmt.Errorf("observability: OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	return res, checkResource(res.Attributes())
}

func (t *Telemetry) traces(res *resource.Resource) error {
	if len(t.cfg.SpanExporters) == 0 {
		t.TracerProvider = noop.NewTracerProvider()
		return nil
	}
	opts := []sdktrace.TracerProviderOption{sdktrace.WithResource(res)}
	byEnvironment, err := samplerInEnvironment()
	switch {
	case t.cfg.Sampler != nil:
		opts = append(opts, sdktrace.WithSampler(t.cfg.Sampler))
	case t.cfg.SampleRatio != 0:
		opts = append(opts, sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(t.cfg.SampleRatio))))
	case err != nil:
		return err
	case !byEnvironment:
		opts = append(opts, sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.AlwaysSample())))
	}
	counts, err := newSpanCounts(t.Registerer)
	if err != nil {
		return fmt.Errorf("observability: register metrics: %w", err)
	}
	for _, e := range t.cfg.SpanExporters {
		opts = append(opts, sdktrace.WithSpanProcessor(newSpanQueue(e, t.cfg.QueueSize, counts, t.Logger)))
	}
	tp := sdktrace.NewTracerProvider(opts...)
	t.TracerProvider = tp
	t.shutdown = append([]func(context.Context) error{tp.Shutdown}, t.shutdown...)
	return nil
}

// InstallGlobals makes t what code without a Telemetry of its own uses: OTel's global providers and propagator, OTel's
// errors, slog's default, and TrackDependency, TrackOperation and Trace where their context carries no Telemetry.
func (t *Telemetry) InstallGlobals() {
	global.Store(t)
	otel.SetTracerProvider(t.TracerProvider)
	otel.SetMeterProvider(t.MeterProvider)
	otel.SetTextMapPropagator(t.Propagator)
	otel.SetLogger(logr.FromSlogHandler(t.handler))
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

// PublicEdge returns Config.PublicEdge, for packages that make spans of servers of their own.
func (t *Telemetry) PublicEdge() bool { return t.cfg.PublicEdge }
