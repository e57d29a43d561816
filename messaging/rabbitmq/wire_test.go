package rabbitmq

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/sillar-go/sillar/messaging"
)

func TestDelaysRoundUpToSteps(t *testing.T) {
	for _, c := range []struct {
		d    time.Duration
		want string
	}{
		{1, "100ms"}, {100 * time.Millisecond, "100ms"}, {101 * time.Millisecond, "250ms"}, {900 * time.Millisecond, "1s"},
		{3 * time.Second, "5s"}, {45 * time.Second, "1m"}, {61 * time.Minute, "2h"}, {13 * time.Hour, "1d"},
		{25 * time.Hour, "2d"}, {1000 * time.Hour, "28d"},
	} {
		if got := stepName(step(c.d)); got != c.want {
			t.Errorf("%v waits in %s, want %s", c.d, got, c.want)
		}
	}
}

// A foreign message, with headers of other types and none of ours, is understood.
func TestDecodeForeign(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	d := amqp.Delivery{RoutingKey: "users.created", MessageId: "m1", AppId: "python", Timestamp: at,
		ContentType: "application/json",
		Headers: amqp.Table{"X-Correlation-ID": "c-1", "retries": int32(3), "flag": true, "raw": []byte("b"), "when": at,
			"nested": amqp.Table{"a": "b", "l": []any{int8(1), []byte("x"), nil}}, "nil": nil, "price": amqp.Decimal{Scale: 2,
				Value: -1205}, "NaN": math.NaN(), "x-death": []any{amqp.Table{}}, headerAttempts: int64(2)}}
	e, attempts := decode(&d)
	if e.ID != "m1" || e.Type != "users.created" || e.Source != "python" || !e.Time.Equal(at) || attempts != 2 {
		t.Fatalf("%+v, %d", e, attempts)
	}
	want := map[string]string{"x-correlation-id": "c-1", "retries": "3", "flag": "true", "raw": "b",
		"when":   "2026-01-02T03:04:05Z",
		"nested": `{"a":"b","l":[1,"x",null]}`, "nil": "", "price": "-12.05", "nan": "NaN"}
	for k, v := range want {
		if got := e.Header(strings.ToUpper(k)); got != v {
			t.Errorf("header %s is %q, want %q", k, got, v)
		}
	}
	if len(e.Headers) != len(want) {
		t.Errorf("headers %v", e.Headers)
	}
	m := copyForQueue(&d, e)
	if _, ok := m.Headers["x-death"]; ok || m.Headers["retries"] != int32(3) ||
		m.Headers["cloudEvents_type"] != "users.created" {
		t.Errorf("sent on with %v", m.Headers)
	}
	if _, changed := d.Headers["cloudEvents_type"]; changed {
		t.Error("the delivery's own headers were changed")
	}
}

// The topic of an event that comes by an exchange is its routing key; only what was moved to a queue has it in a
// header.
func TestDecodeTopic(t *testing.T) {
	for exchange, want := range map[string]string{"microservices": "users.created", "": "orders.paid"} {
		if e, _ := decode(&amqp.Delivery{Exchange: exchange, RoutingKey: "users.created",
			Headers: amqp.Table{headerTopic: "orders.paid"}}); e.Type != want {
			t.Errorf("by the exchange %q: got topic %s, want %s", exchange, e.Type, want)
		}
	}
}

func TestDecodeCloudEvents(t *testing.T) {
	for _, prefix := range []string{"cloudEvents_", "cloudEvents:"} {
		d := amqp.Delivery{RoutingKey: "g.retry.1s", Headers: amqp.Table{prefix + "id": "i", prefix + "type": "a.b",
			prefix + "source":  "s",
			prefix + "subject": "k", prefix + "time": "2026-01-02T03:04:05.000006Z", prefix + "tenant": "blue"}}
		e, _ := decode(&d)
		if e.ID != "i" || e.Type != "a.b" || e.Source != "s" || e.Key != "k" || e.Time.Nanosecond() != 6000 ||
			len(e.Headers) != 1 {
			t.Errorf("%s: %+v", prefix, e)
		}
	}
}

func TestNewRefusesBadURL(t *testing.T) {
	for _, url := range []string{"", "http://guest:hunter2@host", "amqp://guest:hunter2@host:port/",
		"amqp://guest:hunter2@ho st/",
		"amqp://guest:hunter2@h1:1,,h2:2/"} {
		b, err := New(url, Config{})
		if !errors.Is(err, ErrURL) || b != nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("New(%q): %v", url, err)
		}
	}
}

// Two returns under the same id are reported once each.
func TestReturnsAreCounted(t *testing.T) {
	g := &pubGen{returned: map[string]int{}}
	o := outgoing{exchange: "x", key: "k", msg: encode(messaging.Envelope{ID: "1"})}
	g.note(amqp.Return{Exchange: "x", RoutingKey: "k", MessageId: "1"})
	g.note(amqp.Return{Exchange: "x", RoutingKey: "k", MessageId: "1"})
	if !g.wasReturned(o) || !g.wasReturned(o) || g.wasReturned(o) || len(g.returned) != 0 {
		t.Fatal("two returns were not taken twice")
	}
}
