package rabbitmq

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/sillar-go/sillar/messaging"
)

// Headers: CloudEvents' binary mode, and our own.
const (
	cloudEvents    = "cloudEvents_"
	headerAttempts = "x-sillar-attempts" // how many were made
	// headerTopic is the topic of a message that was moved: its routing key is the name of a queue.
	headerTopic = "x-sillar-topic"
	// headerUnhandled counts deliveries to processes without a handler.
	headerUnhandled = "x-sillar-unhandled"
	// headerWait is for how many seconds a message is to wait on before its next attempt.
	headerWait   = "x-sillar-wait"
	headerReason = "x-sillar-reason"
	headerOrigin = "x-sillar-origin"
	headerDeath  = "x-first-death-reason" // the server's, when it dead-lettered by itself
)

// maxReason bounds a reason: a frame holds all headers of a message.
const maxReason = 4 << 10

// encode makes the AMQP message of an event.
func encode(e messaging.Envelope) amqp.Publishing {
	h := make(amqp.Table, len(e.Headers)+6)
	for k, v := range e.Headers {
		// callers cannot set headers of the broker or the event
		if lower := strings.ToLower(k); !own(lower) && !isAttribute(lower) {
			h[k] = v
		}
	}
	stamp(h, e)
	// The properties type and app-id would say once more what the routing key and the headers do, at 3 % of a batch's
	// time.
	return amqp.Publishing{Headers: h, ContentType: e.ContentType, DeliveryMode: amqp.Persistent, MessageId: e.ID,
		Timestamp: e.Time, Body: e.Body}
}

// encode makes the AMQP message of an event, with the routing key that groups with partitions divide by.
func (b *Broker) encode(e messaging.Envelope) amqp.Publishing {
	msg := encode(e)
	if !b.cfg.Unpartitioned {
		setSlot(msg.Headers, e.Key)
	}
	return msg
}

// stamp writes the attributes of an event.
func stamp(h amqp.Table, e messaging.Envelope) {
	h[cloudEvents+"specversion"] = "1.0"
	h[cloudEvents+"id"] = e.ID
	h[cloudEvents+"type"] = e.Type
	h[cloudEvents+"source"] = e.Source
	if !e.Time.IsZero() {
		h[cloudEvents+"time"] = e.Time.UTC().Format(time.RFC3339Nano)
	}
	if e.Key != "" {
		h[cloudEvents+"subject"] = e.Key
	}
}

// decode reads a delivery, a foreign one without CloudEvents' headers too, and how many attempts were made.
func decode(d *amqp.Delivery) (e messaging.Envelope, attempts int) {
	e = messaging.Envelope{ID: d.MessageId, Type: d.RoutingKey, Source: d.AppId, Time: d.Timestamp.UTC(),
		ContentType: d.ContentType, Headers: make(map[string]string, len(d.Headers)), Body: d.Body}
	if d.Timestamp.IsZero() {
		e.Time = time.Time{}
	}
	topic := topicOf(d)
	for name, v := range d.Headers {
		lower := strings.ToLower(name)
		if own(lower) {
			if lower == headerAttempts {
				attempts = number(v)
			}
			continue
		}
		s, ok := text(v)
		if !ok && v != nil {
			continue
		}
		if attr, isEvent := cutPrefix(lower); !isEvent || !setAttribute(&e, attr, s) {
			e.Headers[lower] = s
		}
	}
	if topic != "" && topic != e.Type {
		e.Headers["cloudevents_type"] = e.Type // of another program, whose routing keys are not its types
		e.Type = topic
	}
	return e, attempts
}

// topicOf returns the routing key with which a message was published, or "" where only its own headers may know: it was
// published to a queue by name.
func topicOf(d *amqp.Delivery) string {
	// else the routing key, which the server may permit to some only
	if topic, ok := text(d.Headers[headerTopic]); ok && d.Exchange == "" {
		return topic
	}
	if _, moved := d.Headers[headerAttempts]; moved {
		return ""
	}
	if key, ok := firstKey(d.Headers); ok {
		return key
	}
	if d.Exchange == "" {
		return ""
	}
	return d.RoutingKey
}

// firstKey returns the routing key with which a message was published that the server has moved by itself: the oldest
// entry of x-death has it, while the message has the name of the queue it is in.
func firstKey(h amqp.Table) (key string, ok bool) {
	deaths, _ := h["x-death"].([]any)
	if len(deaths) == 0 {
		return "", false
	}
	oldest, _ := deaths[len(deaths)-1].(amqp.Table)
	keys, _ := oldest["routing-keys"].([]any)
	if len(keys) == 0 {
		return "", false
	}
	key, ok = keys[0].(string)
	return key, ok && key != ""
}

// cutPrefix cuts what begins CloudEvents' headers.
func cutPrefix(lower string) (attr string, isEvent bool) {
	if attr, isEvent = strings.CutPrefix(lower, "cloudevents_"); !isEvent {
		attr, isEvent = strings.CutPrefix(lower, "cloudevents:")
	}
	return attr, isEvent
}

// isAttribute reports whether a header is an attribute that has a field.
func isAttribute(lower string) bool {
	attr, isEvent := cutPrefix(lower)
	return isEvent && setAttribute(&messaging.Envelope{}, attr, "")
}

// setAttribute sets an attribute that has a field.
func setAttribute(e *messaging.Envelope, name, v string) bool {
	switch name {
	case "specversion", "datacontenttype":
	case "id":
		e.ID = v
	case "type":
		e.Type = v
	case "source":
		e.Source = v
	case "subject":
		e.Key = v
	case "time":
		if t, err := time.Parse(time.RFC3339Nano, v); err == nil {
			e.Time = t.UTC()
		}
	default:
		return false
	}
	return true
}

// own reports whether a header belongs to the delivery and not to the message.
func own(lower string) bool {
	return strings.HasPrefix(lower, "x-sillar-") || strings.HasPrefix(lower, "x-first-death-") ||
		strings.HasPrefix(lower, "x-last-death-") || lower == "x-death" || lower == "x-delivery-count" ||
		lower == "x-acquired-count"
}

// text makes a string of a header: of a table or a list its JSON.
func text(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case []byte:
		return string(v), true
	case time.Time:
		return v.UTC().Format(time.RFC3339Nano), true
	case bool, int8, uint8, int16, uint16, int32, uint32, int64, int, float32, float64:
		return fmt.Sprint(v), true
	case amqp.Decimal:
		return decimal(v), true
	case amqp.Table:
		return jsonText(map[string]any(v))
	case []any:
		return jsonText(v)
	}
	return "", false
}

// decimal writes a decimal with all of its digits.
func decimal(d amqp.Decimal) string {
	return new(big.Rat).SetFrac(big.NewInt(int64(d.Value)), new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(d.Scale)),
		nil)).FloatString(int(d.Scale))
}

func jsonText(v any) (string, bool) {
	b, err := json.Marshal(readable(v))
	return string(b), err == nil // NaN has no JSON
}

// readable makes of the values of a table or a list what JSON can hold as text() writes it.
func readable(v any) any {
	switch v := v.(type) {
	case amqp.Table:
		return readable(map[string]any(v))
	case map[string]any:
		m := make(map[string]any, len(v))
		for k, x := range v {
			m[k] = readable(x)
		}
		return m
	case []any:
		l := make([]any, len(v))
		for i, x := range v {
			l[i] = readable(x)
		}
		return l
	case []byte:
		return string(v)
	case amqp.Decimal:
		return json.Number(decimal(v))
	}
	return v
}

func number(v any) int {
	s, _ := text(v)
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return 0
	}
	return min(n, math.MaxInt32) // it is counted on from
}

// copyForQueue makes the message that goes to another queue in place of a delivery: whole, with the sender's headers as
// they were, of whatever type, and without what the server noted.
func copyForQueue(d *amqp.Delivery, e messaging.Envelope) amqp.Publishing {
	h := maps.Clone(d.Headers)
	if h == nil {
		h = amqp.Table{}
	}
	maps.DeleteFunc(h, func(name string, _ any) bool {
		lower := strings.ToLower(name)
		return own(lower) || isAttribute(lower) // stamped anew
	})
	stamp(h, e)
	h[headerTopic] = e.Type
	return amqp.Publishing{Headers: h, ContentType: d.ContentType, ContentEncoding: d.ContentEncoding,
		DeliveryMode: amqp.Persistent,
		Priority:     d.Priority, CorrelationId: d.CorrelationId, ReplyTo: d.ReplyTo, MessageId: d.MessageId,
		Timestamp: d.Timestamp,
		Type:      d.Type, AppId: d.AppId, Body: d.Body}
}
