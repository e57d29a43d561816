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

// encode makes the record of an event. Its key decides the partition.
func encode(topic string, e messaging.Envelope, more ...kgo.RecordHeader) *kgo.Record {
	h := make([]kgo.RecordHeader, 0, len(e.Headers)+7+len(more))
	set := func(name, value string) {
		if value != "" {
			h = append(h, kgo.RecordHeader{Key: name, Value: []byte(value)})
		}
	}
	set(cloudEvents+"specversion", "1.0")
	set(cloudEvents+"id", e.ID)
	set(cloudEvents+"type", e.Type)
	set(cloudEvents+"source", e.Source)
	set(cloudEvents+"subject", e.Key)
	set(headerType, e.ContentType)
	if !e.Time.IsZero() {
		set(cloudEvents+"time", e.Time.UTC().Format(time.RFC3339Nano))
	}
	for name, value := range e.Headers {
		if lower := strings.ToLower(name); !reserved(lower) { // no header replaces an attribute or a count
			h = append(h, kgo.RecordHeader{Key: lower, Value: []byte(value)})
		}
	}
	r := &kgo.Record{Topic: topic, Headers: append(h, more...), Value: e.Body}
	if e.Key != "" {
		r.Key = []byte(e.Key)
	}
	if r.Value == nil {
		r.Value = []byte{} // nil deletes a key in compacted topics
	}
	return r
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

// decode reads a record, also one of another program without CloudEvents' headers: its type is the rest of its Kafka
// topic's name then, and its id its place.
func (b *Broker) decode(r *kgo.Record) (e messaging.Envelope, m marks) {
	e = messaging.Envelope{Key: string(r.Key), Headers: make(map[string]string, len(r.Headers)), Body: r.Value}
	for _, h := range r.Headers {
		v := string(h.Value)
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
	if e.Type == "" {
		e.Type = strings.TrimPrefix(r.Topic, b.cfg.Prefix+".")
	}
	if e.ID == "" {
		e.ID = fmt.Sprintf("%s/%d/%d", r.Topic, r.Partition, r.Offset)
	}
	return e, m
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
