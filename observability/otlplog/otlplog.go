package otlplog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"go.opentelemetry.io/contrib/bridges/otelslog"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploggrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploghttp"
	otellog "go.opentelemetry.io/otel/log"
	"go.opentelemetry.io/otel/sdk/log"
	"go.opentelemetry.io/otel/sdk/resource"

	"github.com/sillar-go/sillar/internal/correlation"
)

// Config names the service and says what is sent.
type Config struct {
	// Service is the name of the service. Default: OTEL_SERVICE_NAME; one of them is required.
	Service string
	// Version of the service. Default: service.version of OTEL_RESOURCE_ATTRIBUTES, else none.
	Version string
	// Attributes are further resource attributes. Default none.
	Attributes []attribute.KeyValue
	// Level is the least level that is sent; a *slog.LevelVar can change it later. Default Info.
	Level slog.Leveler
}

// Logs sends log records. Its zero value and nil send none.
type Logs struct {
	handler  slog.Handler
	provider *log.LoggerProvider
}

// FromEnv returns what the environment asks for: nil unless OTEL_LOGS_EXPORTER is "otlp". It dials when the first
// records come.
func FromEnv(ctx context.Context, cfg Config) (*Logs, error) {
	switch asked := os.Getenv("OTEL_LOGS_EXPORTER"); {
	case os.Getenv("OTEL_SDK_DISABLED") == "true", asked == "", asked == "none":
		return nil, nil
	case asked != "otlp":
		return nil, fmt.Errorf("otlplog: OTEL_LOGS_EXPORTER is %q, known are otlp and none", asked)
	}
	cfg.Service = cmp.Or(cfg.Service, os.Getenv("OTEL_SERVICE_NAME"))
	if cfg.Service == "" {
		return nil, errors.New("otlplog: Config.Service, or OTEL_SERVICE_NAME, is required")
	}
	own := []attribute.KeyValue{attribute.String("service.name", cfg.Service)}
	if cfg.Version != "" {
		own = append(own, attribute.String("service.version", cfg.Version))
	}
	res, err := resource.New(
		ctx, resource.WithTelemetrySDK(), resource.WithFromEnv(), resource.WithAttributes(append(own, cfg.Attributes...)...),
	)
	if err != nil {
		return nil, fmt.Errorf("otlplog: OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	exporter, err := newExporter(ctx)
	if err != nil {
		return nil, err
	}
	if cfg.Level == nil {
		cfg.Level = slog.LevelInfo
	}
	provider := log.NewLoggerProvider(log.WithResource(res),
		log.WithProcessor(processor{log.NewBatchProcessor(exporter), cfg.Level}))
	bridge := otelslog.NewHandler("github.com/sillar-go/sillar/observability", otelslog.WithLoggerProvider(provider))
	return &Logs{handler: bridge, provider: provider}, nil
}

func newExporter(ctx context.Context) (log.Exporter, error) {
	protocol := cmp.Or(os.Getenv("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL"), os.Getenv("OTEL_EXPORTER_OTLP_PROTOCOL"))
	var e log.Exporter
	var err error
	switch protocol {
	case "", "http/protobuf":
		e, err = otlploghttp.New(ctx)
	case "grpc":
		e, err = otlploggrpc.New(ctx)
	default:
		return nil, fmt.Errorf("otlplog: OTEL_EXPORTER_OTLP_PROTOCOL is %q, known are grpc and http/protobuf", protocol)
	}
	if err != nil {
		return nil, fmt.Errorf("otlplog: make the exporter: %w", err)
	}
	return e, nil
}

// Handlers are for observability.Config.LogHandlers: one, or none where nothing is sent.
func (l *Logs) Handlers() []slog.Handler {
	if l == nil || l.handler == nil {
		return nil
	}
	return []slog.Handler{l.handler}
}

// Shutdown sends what waits, and ends the exporter.
func (l *Logs) Shutdown(ctx context.Context) error {
	if l == nil || l.provider == nil {
		return nil
	}
	if err := l.provider.Shutdown(ctx); err != nil {
		return fmt.Errorf("otlplog: send the last records: %w", err)
	}
	return nil
}

// processor adds a least level and the correlation id.
type processor struct {
	log.Processor
	level slog.Leveler
}

// severityOffset is the difference between OpenTelemetry's severities and the levels of slog.
const severityOffset = int(otellog.SeverityInfo) - int(slog.LevelInfo)

// Enabled implements log.Processor.
func (p processor) Enabled(ctx context.Context, param log.EnabledParameters) bool {
	return int(param.Severity)-severityOffset >= int(p.level.Level()) && p.Processor.Enabled(ctx, param)
}

// OnEmit implements log.Processor.
func (p processor) OnEmit(ctx context.Context, r *log.Record) error {
	if id := correlation.From(ctx); id != "" {
		r.AddAttributes(attribute.String("correlation_id", id))
	}
	return p.Processor.OnEmit(ctx, r)
}
