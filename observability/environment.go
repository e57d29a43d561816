package observability

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"

	"github.com/sillar-go/sillar/internal/correlation"
)

// propagatorFromEnvironment returns the propagator that OTEL_PROPAGATORS names, with the correlation id, or the
// default.
func propagatorFromEnvironment() (p propagation.TextMapPropagator, fields []string, err error) {
	names := os.Getenv("OTEL_PROPAGATORS")
	if names == "" {
		return correlation.DefaultPropagator(), []string{"Traceparent"}, nil // without it there is no trace context
	}
	parts := []propagation.TextMapPropagator{correlation.Propagator{}}
	for name := range strings.SplitSeq(names, ",") {
		switch strings.TrimSpace(name) {
		case "tracecontext":
			parts = append(parts, propagation.TraceContext{})
		case "baggage":
			parts = append(parts, propagation.Baggage{})
		case "none", "":
		default:
			return nil, nil, fmt.Errorf(
				"observability: OTEL_PROPAGATORS names %q; known are tracecontext, baggage and none, others need Config.Propagator",
				name,
			)
		}
	}
	return propagation.NewCompositeTextMapPropagator(parts...), nil, nil
}

// queueSizeFromEnvironment returns OTEL_BSP_MAX_QUEUE_SIZE, or 0. The SDK reads the other variables of its family, and
// ignores values that are no numbers.
func queueSizeFromEnvironment() (size int, err error) {
	for _, name := range []string{
		"OTEL_BSP_SCHEDULE_DELAY", "OTEL_BSP_EXPORT_TIMEOUT", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "OTEL_BSP_MAX_QUEUE_SIZE",
	} {
		size = 0
		s := os.Getenv(name)
		if s == "" {
			continue
		}
		if size, err = strconv.Atoi(s); err != nil || size < 1 {
			return 0, fmt.Errorf("observability: %s is %q, want a number above 0", name, s)
		}
	}
	return size, nil
}

// checkResource refuses attributes that the SDK would replace, or that make the page of metrics fail.
func checkResource(attrs []attribute.KeyValue) error {
	for pair := range strings.SplitSeq(os.Getenv("OTEL_RESOURCE_ATTRIBUTES"), ",") {
		if _, err := url.PathUnescape(pair); err != nil {
			return fmt.Errorf("observability: OTEL_RESOURCE_ATTRIBUTES: %w", err)
		}
	}
	if !isValid(attrs) {
		return errors.New("observability: an attribute of Config or of OTEL_RESOURCE_ATTRIBUTES is no UTF-8")
	}
	return nil
}

// samplers are what OTEL_TRACES_SAMPLER may name; the SDK reads it.
var samplers = []string{
	"always_on",
	"always_off",
	"traceidratio",
	"parentbased_always_on",
	"parentbased_always_off",
	"parentbased_traceidratio",
}

// samplerInEnvironment reports whether OTEL_TRACES_SAMPLER decides.
func samplerInEnvironment() (bool, error) {
	s := os.Getenv("OTEL_TRACES_SAMPLER")
	if s == "" {
		return false, nil
	}
	for _, known := range samplers {
		if s == known {
			return true, checkRatio(s)
		}
	}
	return false, fmt.Errorf("observability: OTEL_TRACES_SAMPLER is %q, known are %s", s, strings.Join(samplers, ", "))
}

// checkRatio refuses an OTEL_TRACES_SAMPLER_ARG that the SDK would take for 1.
func checkRatio(sampler string) error {
	s := os.Getenv("OTEL_TRACES_SAMPLER_ARG")
	if s == "" || !strings.HasSuffix(sampler, "traceidratio") {
		return nil
	}
	if ratio, err := strconv.ParseFloat(s, 64); err != nil || !(ratio >= 0 && ratio <= 1) {
		return fmt.Errorf("observability: OTEL_TRACES_SAMPLER_ARG is %q, want a number from 0 to 1", s)
	}
	return nil
}
