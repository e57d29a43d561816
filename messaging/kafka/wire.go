package kafka

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sillar-go/sillar/messaging"
)

// Headers: CloudEvents' Kafka binding in binary mode, and our own.
const (
	cloudEvents = "ce_"
	headerType  = "content-type"
	own         = "x-sillar-"

	headerAttempts = own + "attempts" // how many were made
	// headerUnhandled counts deliveries to processes without a handler.
	headerUnhandled = own + "unhandled"
	// headerDue is the time before which a retry is not delivered, in milliseconds since 1970.
	headerDue    = own + "due"
	headerReason = own + "reason"
	headerOrigin = own + "origin"
)

// maxReason bounds a reason.
const maxReason = 4 << 10

// encode makes the record of an event. Its key decides the partition. The values of its headers lie side by side.
func encode(topic string, e messaging.Envelope, more ...kgo.RecordHeader) *kgo.Record {
	room := len("1.0") + len(e.ID) + len(e.Type) + len(e.Source) + 2*len(e.Key) + len(e.ContentType) +
		len(time.RFC3339Nano)
	for _, value := range e.Headers {
		room += len(value)
	}
	h := headers{make([]kgo.RecordHeader, 0, len(e.Headers)+7+len(more)), make([]byte, 0, room)}
	h.attribute("ce_specversion", "1.0")
	h.attribute("ce_id", e.ID)
	h.attribute("ce_type", e.Type)
	h.attribute("ce_source", e.Source)
	h.attribute("ce_subject", e.Key)
	h.attribute(headerType, e.ContentType)
	if !e.Time.IsZero() {
		n := len(h.values)
		h.values = e.Time.UTC().AppendFormat(h.values, time.RFC3339Nano)
		h.end("ce_time", n)
	}
	for name, value := range e.Headers {
		if lower := strings.ToLower(name); !reserved(lower) { // no header replaces an attribute or a count
			h.set(lower, value)
		}
	}
	r := &kgo.Record{Topic: topic, Value: e.Body}
	if e.Key != "" {
		h.values = append(h.values, e.Key...)
		r.Key = h.values[len(h.values)-len(e.Key):]
	}
	h.all = append(h.all, more...)
	r.Headers = h.all
	if r.Value == nil {
		r.Value = []byte{} // nil deletes a key in compacted topics
	}
	return r
}

// headers are those of a record that is made.
type headers struct {
	all    []kgo.RecordHeader
	values []byte
}

// attribute writes a header unless its value is empty.
func (h *headers) attribute(name, value string) {
	if value != "" {
		h.set(name, value)
	}
}

func (h *headers) set(name, value string) {
	n := len(h.values)
	h.values = append(h.values, value...)
	h.end(name, n)
}

// end makes a header of the values from n on.
func (h *headers) end(name string, n int) {
	h.all = append(h.all, kgo.RecordHeader{Key: name, Value: h.values[n:len(h.values):len(h.values)]})
}

// reserved reports whether a header belongs to this package or to the event's attributes.
func reserved(lower string) bool {
	return lower == headerType || strings.HasPrefix(lower, own) || strings.HasPrefix(lower, cloudEvents)
}

// marks are the headers of this package.
type marks struct {
	attempts  int
	unhandled int
	due       time.Time
	reason    string
	origin    string
}

// decode reads a record, also one of another program. Without CloudEvents' headers its type is the rest of its Kafka
// topic's name, and its id its place. A type that does not begin with that rest is not the topic by which a group gets
// it: it becomes a header.
func (b *Broker) decode(r *kgo.Record) (e messaging.Envelope, m marks) {
	e = messaging.Envelope{Key: string(r.Key), Headers: make(map[string]string, len(r.Headers)), Body: r.Value}
	text := values(r.Headers)
	for _, h := range r.Headers {
		v := text[:len(h.Value)]
		text = text[len(v):]
		switch lower := strings.ToLower(h.Key); lower {
		case headerType:
			e.ContentType = v
		case cloudEvents + "specversion", cloudEvents + "datacontenttype":
		case cloudEvents + "id":
			e.ID = v
		case cloudEvents + "type":
			e.Type = v
		case cloudEvents + "source":
			e.Source = v
		case cloudEvents + "subject":
			e.Key = v
		case cloudEvents + "time":
			if t, err := time.Parse(time.RFC3339Nano, v); err == nil {
				e.Time = t.UTC()
			}
		case headerAttempts:
			m.attempts = number(v)
		case headerUnhandled:
			m.unhandled = number(v)
		case headerDue:
			if ms, err := strconv.ParseInt(v, 10, 64); err == nil {
				m.due = time.UnixMilli(ms)
			}
		case headerReason:
			m.reason = v
		case headerOrigin:
			m.origin = v
		default:
			if extension, ok := strings.CutPrefix(lower, cloudEvents); ok {
				e.Headers["cloudevents_"+extension] = v
			} else if !reserved(lower) {
				e.Headers[lower] = v
			}
		}
	}
	if b.isEventTopic(r.Topic) {
		word := strings.TrimPrefix(r.Topic, b.cfg.Prefix+".")
		if rest, ok := strings.CutPrefix(e.Type, word); !ok || rest != "" && rest[0] != '.' {
			if e.Type != "" {
				e.Headers["cloudevents_type"] = e.Type
			}
			e.Type = word
		}
	}
	if e.ID == "" {
		e.ID = fmt.Sprintf("%s/%d/%d", r.Topic, r.Partition, r.Offset)
	}
	return e, m
}

// values returns the values of headers side by side: one string is made faster than many.
func values(all []kgo.RecordHeader) string {
	n := 0
	for _, h := range all {
		n += len(h.Value)
	}
	var text strings.Builder
	text.Grow(n)
	for _, h := range all {
		text.Write(h.Value)
	}
	return text.String()
}

// number reads a count.
func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return 0
	}
	return min(n, math.MaxInt32)
}

func header(name, value string) kgo.RecordHeader {
	return kgo.RecordHeader{Key: name, Value: []byte(value)}
}
