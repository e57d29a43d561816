package correlation_test

import (
	"context"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/propagation"

	"github.com/sillar-go/sillar/internal/correlation"
)

func TestValidRefusesHostileIDs(t *testing.T) {
	for s, want := range map[string]bool{
		"":                            false,
		"a":                           true,
		"order-42_x.Y":                true,
		strings.Repeat("a", 128):      true,
		strings.Repeat("a", 129):      false,
		"line\nbreak":                 false,
		"quote\"":                     false,
		"späce":                       false,
		"a b":                         false,
		"a\x00b":                      false,
		correlation.New():             true,
		"{\"level\":\"error\"}":       false,
		"../../etc/passwd":            false,
		"trailing ":                   false,
		"0123456789abcdefABCDEF-._ok": true,
	} {
		if got := correlation.Valid(s); got != want {
			t.Errorf("Valid(%q) = %v, want %v", s, got, want)
		}
	}
}

func TestPropagatorRoundTrip(t *testing.T) {
	ctx, id := correlation.Ensure(context.Background())
	if _, again := correlation.Ensure(ctx); again != id {
		t.Fatalf("Ensure made a second id %q beside %q", again, id)
	}
	carrier := propagation.MapCarrier{}
	correlation.DefaultPropagator().Inject(ctx, carrier)
	if got := correlation.From(correlation.DefaultPropagator().Extract(context.Background(), carrier)); got != id {
		t.Fatalf("after a round trip the id is %q, want %q", got, id)
	}
	lower := propagation.MapCarrier{"x-correlation-id": id}
	if got := correlation.From(correlation.DefaultPropagator().Extract(context.Background(), lower)); got != id {
		t.Fatalf("from a lower-case key the id is %q, want %q", got, id)
	}
	hostile := propagation.MapCarrier{correlation.Header: "x\r\ny"}
	if got := correlation.From(correlation.DefaultPropagator().Extract(context.Background(), hostile)); got != "" {
		t.Fatalf("a hostile id was accepted: %q", got)
	}
}
