package driver

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"go.opentelemetry.io/otel/propagation"

	"github.com/sillar-go/sillar/internal/correlation"
	"github.com/sillar-go/sillar/internal/id"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/internal/carrier"
)

// Fill returns e with its defaults in place: a new ID, source, the time, and what propagator (nil: trace context and
// correlation id) takes from ctx as headers. The error matches messaging.ErrInvalid when e cannot be published.
func Fill(ctx context.Context, e messaging.Envelope, source string, propagator propagation.TextMapPropagator) (
	messaging.Envelope, error) {
	if e.ID == "" {
		e.ID = id.New()
	}
	if e.Source == "" {
		e.Source = source
	}
	if e.Time.IsZero() {
		e.Time = time.Now().UTC()
	}
	if e.ContentType == "" {
		e.ContentType = "application/json"
	}
	if propagator == nil {
		propagator = correlation.DefaultPropagator()
	}
	headers := make(map[string]string, len(e.Headers)+3)
	propagator.Inject(ctx, carrier.Carrier(headers))
	for k, v := range e.Headers { // what the envelope says stands: a relay speaks for another context
		headers[strings.ToLower(k)] = v
	}
	e.Headers = headers
	return e, validate(e)
}

// validate reports what keeps an event from being published, as an ErrInvalid.
func validate(e messaging.Envelope) error {
	switch {
	case e.Type == "" || len(e.Type) > messaging.MaxName || strings.ContainsAny(e.Type, "*# \t\r\n"):
		return fmt.Errorf("%w: topic %q: want 1 to %d bytes without *, # or space", messaging.ErrInvalid, e.Type,
			messaging.MaxName)
	case e.ID == "":
		return fmt.Errorf("%w: no ID", messaging.ErrInvalid)
	case e.Source == "":
		return fmt.Errorf("%w: no Source: name the service in the broker's Config", messaging.ErrInvalid)
	case max(len(e.ID), len(e.Source), len(e.ContentType)) > messaging.MaxName:
		return fmt.Errorf("%w: ID, Source or ContentType: want at most %d bytes", messaging.ErrInvalid, messaging.MaxName)
	case !isText(e.Type) || !isText(e.ID) || !isText(e.Source) || !isText(e.ContentType) || !isText(e.Key):
		return fmt.Errorf("%w: topic, ID, Source, ContentType and Key: want UTF-8 without NUL", messaging.ErrInvalid)
	}
	size := len(e.Key)
	for name, value := range e.Headers {
		if name == "" || len(name) > messaging.MaxName {
			return fmt.Errorf("%w: name of a header: want 1 to %d bytes", messaging.ErrInvalid, messaging.MaxName)
		}
		size += len(name) + len(value)
	}
	if size > messaging.MaxHeaders {
		return fmt.Errorf("%w: %d bytes of headers: want at most %d", messaging.ErrInvalid, size, messaging.MaxHeaders)
	}
	return nil
}

// isText reports whether every broker and outbox keeps a text as it is.
func isText(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }
