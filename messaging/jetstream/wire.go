package jetstream

import (
	"fmt"
	"math"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/sillar-go/sillar/messaging"
)

// Headers: CloudEvents' binary mode, the server's, and our own.
const (
	cloudEvents     = "ce-"
	headerType      = "content-type"
	headerMessageID = "Nats-Msg-Id"
	headerAttempts  = "x-sillar-attempts" // how many were made
	// headerTopic is the topic of a message that was moved: its subject is the group's.
	headerTopic = "x-sillar-topic"
	// headerUnhandled counts deliveries to processes without a handler.
	headerUnhandled = "x-sillar-unhandled"
	// headerDelay is for how many milliseconds after it was stored a message is to wait.
	headerDelay  = "x-sillar-delay"
	headerReason = "x-sillar-reason"
	headerOrigin = "x-sillar-origin"
)

// maxReason bounds a reason.
const maxReason = 4 << 10

// encode makes the NATS message of an event.
func (b *Broker) encode(e messaging.Envelope) (*nats.Msg, error) {
	subject, err := b.subject(e.Type)
	if err != nil {
		return nil, err
	}
	h := newHeaders(len(e.Headers) + 8)
	h.stamp(e)
	h.set(headerMessageID, url.QueryEscape(e.Type)+"/"+url.QueryEscape(e.Source)+"/"+url.QueryEscape(e.ID))
	return &nats.Msg{Subject: subject, Header: h.all, Data: e.Body}, nil
}

// headers are those of a message that is made. Their values lie side by side.
type headers struct {
	all    nats.Header
	values []string
}

func newHeaders(n int) *headers {
	return &headers{make(nats.Header, n), make([]string, 0, n)}
}

func (h *headers) set(name, value string) {
	h.values = append(h.values, value)
	n := len(h.values)
	h.all[name] = h.values[n-1 : n : n]
}

// setText escapes a value, and leaves out an empty one.
func (h *headers) setText(name, value string) {
	if value != "" {
		h.set(name, escape(value))
	}
}

// stamp writes the headers and the attributes of an event.
func (h *headers) stamp(e messaging.Envelope) {
	for k, v := range e.Headers {
		// callers cannot set headers of the server, the broker or the event
		if lower := strings.ToLower(k); !reserved(lower) {
			h.set(escapeName(lower), escape(v))
		}
	}
	h.set(cloudEvents+"specversion", "1.0")
	h.setText(cloudEvents+"id", e.ID)
	h.setText(cloudEvents+"type", e.Type)
	h.setText(cloudEvents+"source", e.Source)
	h.setText(cloudEvents+"subject", e.Key)
	h.setText(headerType, e.ContentType)
	if !e.Time.IsZero() {
		h.set(cloudEvents+"time", e.Time.UTC().Format(time.RFC3339Nano))
	}
}

// reserved reports whether a header belongs to the server, to this package or to the event's attributes.
func reserved(lower string) bool {
	return lower == headerType || strings.HasPrefix(lower, "nats-") || strings.HasPrefix(lower, "x-sillar-") ||
		strings.HasPrefix(lower, cloudEvents)
}

// decode reads a message, a foreign one without CloudEvents' headers too.
func (b *Broker) decode(m *nats.Msg) messaging.Envelope {
	topic, event := strings.CutPrefix(m.Subject, b.cfg.Stream+".")
	// an event's subject, which the server may permit to some only, is its topic
	if t := value(m, headerTopic); t != "" && !event {
		topic = t
	}
	e := messaging.Envelope{Type: topic, Headers: make(map[string]string, len(m.Header)), Body: m.Data}
	for name, values := range m.Header {
		if len(values) == 0 {
			continue
		}
		lower, v := strings.ToLower(name), unescape(values[0])
		switch lower {
		case headerType:
			e.ContentType = v
		case "ce-specversion", "ce-datacontenttype":
		case "ce-id":
			e.ID = v
		case "ce-source":
			e.Source = v
		case "ce-subject":
			e.Key = v
		case "ce-time":
			if t, err := time.Parse(time.RFC3339Nano, v); err == nil {
				e.Time = t.UTC()
			}
		case "ce-type":
			if v != topic { // of another program, whose subjects are not its types
				e.Headers["cloudevents_type"] = v
			}
		default:
			if extension, ok := strings.CutPrefix(lower, cloudEvents); ok {
				e.Headers["cloudevents_"+extension] = v
			} else if !reserved(lower) {
				e.Headers[unescape(lower)] = v
			}
		}
	}
	if e.ID == "" && event { // else that is the id of the move
		e.ID = m.Header.Get(headerMessageID)
	}
	return e
}

// value returns one of our own headers.
func value(m *nats.Msg, name string) string { return unescape(m.Header.Get(name)) }

// number returns a header that counts.
func number(m *nats.Msg, name string) int {
	n, err := strconv.Atoi(m.Header.Get(name))
	if err != nil || n < 0 {
		return 0
	}
	return min(n, math.MaxInt32)
}

// escape writes bytes that the lines of a NATS header do not carry as %XX: as CloudEvents' HTTP binding does, save that
// spaces inside stay.
func escape(s string) string {
	plain := func(i int) bool {
		c := s[i]
		return c > ' ' && c < 0x7f && c != '%' || c == ' ' && i > 0 && i < len(s)-1
	}
	return escapeUnless(s, plain)
}

// escapeName is escape for names.
func escapeName(s string) string {
	return escapeUnless(s, func(i int) bool {
		c := s[i]
		return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.'
	})
}

func escapeUnless(s string, plain func(i int) bool) string {
	for i := range len(s) {
		if plain(i) {
			continue
		}
		var b strings.Builder
		b.WriteString(s[:i])
		for ; i < len(s); i++ {
			if plain(i) {
				b.WriteByte(s[i])
			} else {
				fmt.Fprintf(&b, "%%%02x", s[i])
			}
		}
		return b.String()
	}
	return s
}

// unescape undoes escape, and leaves a % that begins no escape as it is.
func unescape(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b.WriteByte(byte(c))
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
