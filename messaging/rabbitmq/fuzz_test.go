package rabbitmq

import (
	"encoding/binary"
	"math"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/driver"
)

// value makes a header's value of any of AMQP's types.
func value(kind byte, text string, depth int) any {
	n := uint64(0)
	for i := range min(len(text), 8) {
		n = n<<8 | uint64(text[i])
	}
	switch kind % 16 {
	case 0:
		return text
	case 1:
		return []byte(text)
	case 2:
		return n%2 == 0
	case 3:
		return int8(n)
	case 4:
		return int16(n)
	case 5:
		return int32(n)
	case 6:
		return int64(n)
	case 7:
		return math.Float32frombits(uint32(n))
	case 8:
		return math.Float64frombits(n)
	case 9:
		return time.Unix(int64(int32(n)), 0)
	case 10:
		return amqp.Decimal{Scale: uint8(n), Value: int32(n)}
	case 11:
		return byte(n)
	case 12:
		return nil
	case 13:
		if depth > 0 {
			return amqp.Table{"x": value(byte(n), text, depth-1)}
		}
	case 14:
		if depth > 0 {
			return []any{value(byte(n), text, depth-1)}
		}
	}
	return int(n)
}

// Whatever a foreign message has for headers, it is read, and what is sent on in its place has the same event and the
// same foreign headers.
func FuzzDecode(f *testing.F) {
	for kind := range byte(16) {
		f.Add("x-name", kind, "12", "cloudEvents_id", kind, "abc")
		f.Add("x-sillar-attempts", kind, "\x00\x00\x00\x07", "cloudEvents:time", kind, "2026-01-02T03:04:05Z")
	}
	f.Add("cloudEvents:tenant", byte(0), "blue", "CloudEvents_subject", byte(1), "k")
	f.Fuzz(func(t *testing.T, name1 string, kind1 byte, text1, name2 string, kind2 byte, text2 string) {
		d := amqp.Delivery{RoutingKey: "a.b", MessageId: "m", Headers: amqp.Table{name1: value(kind1, text1, 2),
			name2: value(kind2, text2, 2)}}
		e, attempts := decode(&d)
		if attempts < 0 || e.Headers == nil {
			t.Fatalf("%+v, %d attempts", e, attempts)
		}
		msg := copyForQueue(&d, e)
		if err := msg.Headers.Validate(); err != nil && d.Headers.Validate() == nil {
			t.Fatalf("sent on with %v: %v", msg.Headers, err)
		}
		back, more := decode(&amqp.Delivery{RoutingKey: "g.retry.1s", MessageId: msg.MessageId, Headers: msg.Headers,
			Timestamp: msg.Timestamp})
		if more != 0 || back.ID != e.ID || back.Type != e.Type || back.Source != e.Source || back.Key != e.Key ||
			len(back.Headers) != len(e.Headers) {
			t.Fatalf("sent on %+v as %+v (%v)", e, back, d.Headers)
		}
	})
}

// What is encoded is decoded to the same event, whatever its headers say.
func FuzzEncode(f *testing.F) {
	f.Add("id", "a.b", "src", "k", "x-tenant", "blue", uint64(1))
	f.Add("id", "a.b", "src", "", "cloudevents_id", "evil", uint64(0))
	f.Add("id", "a.b", "src", "k", "x-sillar-attempts", "99", uint64(7))
	f.Fuzz(func(t *testing.T, id, topic, source, key, name, text string, at uint64) {
		e, err := driver.Fill(t.Context(), messaging.Envelope{ID: id, Type: topic, Source: source, Key: key,
			Time:    time.Unix(int64(uint32(at)), int64(at%1e9)).UTC(),
			Headers: map[string]string{name: text}, Body: binary.BigEndian.AppendUint64(nil, at)}, "s", nil)
		if err != nil {
			return
		}
		m := encode(e)
		got, attempts := decode(&amqp.Delivery{RoutingKey: topic, MessageId: m.MessageId, AppId: m.AppId,
			Timestamp: m.Timestamp, ContentType: m.ContentType, Headers: m.Headers, Body: m.Body})
		if attempts != 0 || got.ID != e.ID || got.Type != e.Type || got.Source != e.Source || got.Key != e.Key ||
			!got.Time.Equal(e.Time) || string(got.Body) != string(e.Body) {
			t.Fatalf("encoded %+v, decoded %+v after %d attempts", e, got, attempts)
		}
	})
}
