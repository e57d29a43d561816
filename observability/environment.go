package observability

import (
	"fmt"
	"os"
	"strconv"
	"strings"

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

// queueSizeFromEnvironment returns OTEL_BSP_MAX_QUEUE_SIZE, or 0. The SDK reads the other variables of its family.
func queueSizeFromEnvironment() (int, error) {
	s := os.Getenv("OTEL_BSP_MAX_QUEUE_SIZE")
	if s == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("observability: OTEL_BSP_MAX_QUEUE_SIZE is %q, want a number above 0", s)
	}
	return n, nil
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
			return true, nil
		}
	}
	return false, fmt.Errorf("observability: OTEL_TRACES_SAMPLER is %q, known are %s", s, strings.Join(samplers, ", "))
}
