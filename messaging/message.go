package messaging

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"go.opentelemetry.io/otel/propagation"

	"github.com/sillar-go/sillar/internal/correlation"
	"github.com/sillar-go/sillar/internal/id"
)

// Envelope is a CloudEvents 1.0 event in binary mode: attributes beside an opaque body.
type Envelope struct {
	// ID identifies the event; with Source it is unique. Default: a new UUIDv7.
	ID string
	// Type is the topic, such as "orders.created": the routing key.
	Type string
	// Source says who told it.
	Source string
	// Time is when it happened, in UTC.
	Time time.Time
	// Key orders events: those of one key are told, and with GroupConfig.Ordered handled, in order. Often an entity's
	// id. It is CloudEvents' subject.
	Key string
	// ContentType is the body's. Default application/json.
	ContentType string
	// Headers travel with it: correlation id and trace context among them. Names are lower case.
	Headers map[string]string
	// Body is the data.
	Body []byte

	codec Codec // of Publish's options, until the payload is encoded
}

// Header returns a header, or "". Upper and lower case of its name are the same.
func (e Envelope) Header(name string) string { return e.Headers[strings.ToLower(name)] }

// Message is an event as a typed handler gets it.
type Message[T any] struct {
	Envelope
	// Data is the decoded body.
	Data T
	// Attempt counts from 1.
	Attempt int
}

// Limits, in bytes. They are AMQP's, whose server ends a connection that breaks them.
const (
	// MaxName bounds a topic, and an ID, Source, ContentType and the name of a header.
	MaxName = 255
	// MaxHeaders bounds names and values of all headers together, Key included.
	MaxHeaders = 64 << 10
)

// Validate reports what keeps an envelope from being published, as an ErrInvalid.
func (e Envelope) Validate() error {
	switch {
	case e.Type == "" || len(e.Type) > MaxName || strings.ContainsAny(e.Type, "*# \t\r\n"):
		return fmt.Errorf("%w: topic %q: want 1 to %d bytes without *, # or space", ErrInvalid, e.Type, MaxName)
	case e.ID == "":
		return fmt.Errorf("%w: no ID", ErrInvalid)
	case e.Source == "":
		return fmt.Errorf("%w: no Source: name the service in the broker's Config", ErrInvalid)
	case max(len(e.ID), len(e.Source), len(e.ContentType)) > MaxName:
		return fmt.Errorf("%w: ID, Source or ContentType: want at most %d bytes", ErrInvalid, MaxName)
	case !isText(e.Type) || !isText(e.ID) || !isText(e.Source) || !isText(e.ContentType) || !isText(e.Key):
		return fmt.Errorf("%w: topic, ID, Source, ContentType and Key: want UTF-8 without NUL", ErrInvalid)
	}
	size := len(e.Key)
	for name, value := range e.Headers {
		if name == "" || len(name) > MaxName {
			return fmt.Errorf("%w: name of a header: want 1 to %d bytes", ErrInvalid, MaxName)
		}
		size += len(name) + len(value)
	}
	if size > MaxHeaders {
		return fmt.Errorf("%w: %d bytes of headers: want at most %d", ErrInvalid, size, MaxHeaders)
	}
	return nil
}

// isText reports whether every broker and outbox keeps a text as it is.
func isText(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

// Option changes what Publish sends.
type Option func(*Envelope)

// WithID sets the event's id, for instance to publish something again under the same one.
func WithID(id string) Option { return func(e *Envelope) { e.ID = id } }

// WithKey sets the key by which events are ordered.
func WithKey(key string) Option { return func(e *Envelope) { e.Key = key } }

// WithTime sets when the event happened. Default now.
func WithTime(t time.Time) Option { return func(e *Envelope) { e.Time = t.UTC() } }

// WithHeader adds a header.
func WithHeader(name, value string) Option {
	return func(e *Envelope) {
		if e.Headers == nil {
			e.Headers = map[string]string{}
		}
		e.Headers[strings.ToLower(name)] = value
	}
}

// NewEnvelope makes the event that Publish sends: payload as JSON (a []byte or json.RawMessage as it is) or as
// WithCodec says, a new id, the time, and what propagator (nil: trace context and correlation id) takes from ctx as
// headers.
func NewEnvelope(ctx context.Context, source string, propagator propagation.TextMapPropagator, topic string,
	payload any, opts ...Option) (Envelope, error) {
	e := Envelope{Type: topic, Source: source}
	for _, o := range opts {
		o(&e)
	}
	if err := encode(&e, payload); err != nil {
		return e, err
	}
	return e.Fill(ctx, source, propagator)
}

// Fill returns e with its defaults in place and the headers of ctx added, validated. It is for adapters.
func (e Envelope) Fill(ctx context.Context, source string, propagator propagation.TextMapPropagator) (Envelope, error) {
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
	propagator.Inject(ctx, Headers(headers))
	for k, v := range e.Headers { // what the envelope says stands: a relay speaks for another context
		headers[strings.ToLower(k)] = v
	}
	e.Headers = headers
	return e, e.Validate()
}

// Headers is a propagation.TextMapCarrier over an envelope's headers, whose names are lower case.
type Headers map[string]string

// Get implements propagation.TextMapCarrier.
func (h Headers) Get(name string) string { return h[strings.ToLower(name)] }

// Set implements propagation.TextMapCarrier.
func (h Headers) Set(name, value string) { h[strings.ToLower(name)] = value }

// Keys implements propagation.TextMapCarrier.
func (h Headers) Keys() []string {
	keys := make([]string, 0, len(h))
	for k := range h {
		keys = append(keys, k)
	}
	return keys
}
