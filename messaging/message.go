package messaging

import (
	"strings"
	"time"
)

// Envelope is a CloudEvents 1.0 event in binary mode: attributes beside an opaque body.
type Envelope struct {
	// ID identifies the event; with Source it is unique. Default: a new UUIDv7.
	ID string
	// Type is the topic, such as "orders.created": the routing key.
	Type string
	// Source is the service that publishes it.
	Source string
	// Time is when it happened, in UTC.
	Time time.Time
	// Key orders events: those of one key are published, and with GroupConfig.Ordered handled, in order. Often an entity's
	// id. It is CloudEvents' subject.
	Key string
	// ContentType is the body's. Default application/json.
	ContentType string
	// Headers travel with it: correlation id and trace context among them. Names are lower case.
	Headers map[string]string
	// Body is the data.
	Body []byte
	// DeliverAt holds the event back until then; the zero time and the past do not. It is not part of what consumers get.
	// See WithDeliverAt.
	DeliverAt time.Time

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

// Limits, in bytes. They hold for every broker and outbox, so that what an outbox has stored can be published over any
// of them. They are the narrowest ones: AMQP's, whose server ends a connection that breaks them.
const (
	// MaxName bounds a topic, and an ID, Source, ContentType and the name of a header.
	MaxName = 255
	// MaxHeaders bounds names and values of all headers together, Key included.
	MaxHeaders = 64 << 10
)

// Option changes what Publish sends.
type Option func(*Envelope)

// WithID sets the event's id, for instance to publish something again under the same one.
func WithID(id string) Option { return func(e *Envelope) { e.ID = id } }

// WithKey sets the key by which events are ordered.
func WithKey(key string) Option { return func(e *Envelope) { e.Key = key } }

// WithTime sets when the event happened. Default now.
func WithTime(t time.Time) Option { return func(e *Envelope) { e.Time = t.UTC() } }

// WithDeliverAt delivers the event at t or a little later: an outbox in SQL publishes it then (sqloutbox, which looks
// every RelayConfig.Poll), by the clock of its database, and so does the broker in process; other publishers return
// ErrUnsupported (Features.DelayedPublish). Later events of its key do not wait for it. Until then an operator can drop
// it (outbox.HeldStore).
func WithDeliverAt(t time.Time) Option { return func(e *Envelope) { e.DeliverAt = t.UTC() } }

// WithDelay is WithDeliverAt in d from now.
func WithDelay(d time.Duration) Option { return WithDeliverAt(time.Now().Add(d)) }

// WithHeader adds a header.
func WithHeader(name, value string) Option {
	return func(e *Envelope) {
		if e.Headers == nil {
			e.Headers = map[string]string{}
		}
		e.Headers[strings.ToLower(name)] = value
	}
}

// NewEnvelope makes an event for PublishBatch: payload as JSON (a []byte or json.RawMessage as it is) or as WithCodec
// says. What is not set yet, such as ID and Time, is set when it is published. The error matches ErrInvalid.
func NewEnvelope(topic string, payload any, opts ...Option) (Envelope, error) {
	e := Envelope{Type: topic}
	for _, o := range opts {
		o(&e)
	}
	return e, encode(&e, payload)
}
