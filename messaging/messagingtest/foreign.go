package messagingtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sillar-go/sillar/messaging"
)

// ForeignMessage is a message as another program may send it.
type ForeignMessage struct {
	// Name says what is odd about it.
	Name string
	// ContentType is that of the body, in the place that the broker has for it.
	ContentType string
	// Headers are its headers, CloudEvents' attributes among them.
	Headers map[string]string
	// Body is its body, which may be nil.
	Body []byte
}

// Foreign checks that each message of another program is handled or becomes a dead letter that can be redriven, whole,
// and that none holds up what comes after it. Attributes of CloudEvents have prefix before their names. The function
// send publishes a message without this library to a topic, and reports whether the broker takes it. Foreign closes b.
func Foreign(t *testing.T, b messaging.Broker, prefix string, send func(t *testing.T, topic string,
	m ForeignMessage) bool) {
	t.Helper()
	const patience = time.Minute
	e := &env{T: t, Broker: b, f: Features{Patience: patience}}
	e.ctx, e.cancel = context.WithTimeout(t.Context(), 3*patience)
	t.Cleanup(func() {
		e.cancel()
		if err := b.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	var typed, attempts, good atomic.Int64
	few := messaging.GroupConfig{Concurrency: 4, Retry: messaging.Retry{Attempts: 2,
		Backoff: messaging.Exponential(time.Millisecond, time.Millisecond)}, Unhandled: messaging.Retry{Attempts: 1}}
	stop := e.route(func(r *messaging.Router) {
		messaging.Handle(r.Group("typed", few), "typed.#", func(context.Context, messaging.Message[order]) error {
			typed.Add(1)
			return nil
		})
		messaging.HandleRaw(r.Group("raw", few), "raw.#", func(_ context.Context, m messaging.Message[[]byte]) error {
			if m.Header("good") != "" {
				good.Add(1)
				return nil
			}
			attempts.Add(1)
			return errBoom
		})
	})
	e.until("the groups", func() bool { // a group that is there has a queue of dead letters
		_, err := b.DeadLetters(e.ctx, "raw", 1)
		return err == nil && b.Health(e.ctx) == nil
	})
	e.bind("typed", "typed.#")
	e.bind("raw", "raw.#")
	bodies := map[string]int{}
	n := 0
	for _, m := range foreignMessages(prefix) {
		if taken := send(t, "raw.t", m); taken != send(t, "typed.t", m) {
			t.Fatalf("%s: the broker takes it for one topic only", m.Name)
		} else if !taken {
			continue
		}
		n++
		bodies[string(m.Body)]++
	}
	all := func(group string) (dead []messaging.DeadLetter) {
		dead, err := b.DeadLetters(e.ctx, group, 10*n)
		e.must(err)
		return dead
	}
	e.until("an end of each typed message", func() bool { return int(typed.Load())+len(all("typed")) >= n })
	var dead []messaging.DeadLetter
	e.until("a dead letter of each", func() bool { dead = all("raw"); return len(dead) >= n })
	left := maps.Clone(bodies)
	for _, d := range dead {
		if left[string(d.Body)]--; left[string(d.Body)] < 0 {
			t.Errorf("an unknown body, or once too often: %.40q of %+.200v", d.Body, d.Headers)
		}
	}
	if most := int64(2 * n); attempts.Load() > most {
		t.Errorf("%d attempts, want at most %d", attempts.Load(), most)
	}
	moved := 0
	e.until("all letters to be moved", func() bool {
		m, err := b.Redrive(e.ctx, "raw", n-moved)
		if moved += m; err != nil && !errors.Is(err, messaging.ErrInvalid) {
			t.Fatalf("redrive: %v", err)
		}
		return moved >= n
	})
	e.until("a dead letter of each once more", func() bool { return len(all("raw")) >= n })
	e.publish("raw.t", order{"1"}, messaging.WithHeader("good", "1"))
	before := typed.Load()
	e.publish("typed.t", order{"1"})
	e.until("the messages behind them", func() bool { return good.Load() == 1 && typed.Load() > before })
	e.must(stop())
}

// foreignMessages returns messages each of which is odd in one way.
func foreignMessages(prefix string) (all []ForeignMessage) {
	body := []byte(`{"id":"1"}`)
	junk := make([]byte, 256)
	for i := range junk {
		junk[i] = byte(i)
	}
	deep := bytes.Repeat([]byte("["), 100_000)
	deepObject := bytes.Repeat([]byte(`{"id":`), 100_000)
	for name, b := range map[string][]byte{"none": nil, "empty": {}, "null": []byte("null"), "binary": junk,
		"a deep list": deep, "a deep object": deepObject, "half": body[:5], "two": append(slices.Clone(body), body...),
		"a byte order mark": append([]byte("\xef\xbb\xbf"), body...), "another type": []byte(`{"id":{"id":[1]}}`),
		"a large number": []byte(`{"id":1e999999}`), "no UTF-8": []byte("{\"id\":\"\xff\xfe\"}"),
		"gzip": {0x1f, 0x8b, 8, 0, 0, 0, 0, 0}} {
		all = append(all, ForeignMessage{Name: "body: " + name, ContentType: "application/json", Body: b})
	}
	for _, c := range []string{"", " ", ";", ";;;", "/", "a/b; x=\"", "application/json; charset=latin1",
		"APPLICATION/JSON",
		"application/json;charset", "text/html", "application/x-protobuf", "\x00\xff", strings.Repeat("a", 250), "*/*",
		"application/cloudevents-batch+json", "application/avro+json"} {
		all = append(all, ForeignMessage{Name: fmt.Sprintf("content type %.20q", c), ContentType: c, Body: body})
	}
	for _, b := range []string{"", "null", "[]", "1", `"x"`, `{}`, `{"specversion":1}`, `{"specversion":"1.0","id":7}`,
		`{"specversion":"0.3","id":"1","source":"s","type":"t"}`, `{"specversion":"1.0","id":"1","source":"s","type":"t"}`,
		`{"specversion":"1.0","id":"","source":"s","type":"t","data":{}}`,
		`{"specversion":"1.0","id":"\u0000","source":"\ud800","type":"*.#","data":{"id":"1"}}`,
		`{"specversion":"1.0","id":"1","source":"s","type":"t","time":"yesterday","data":{}}`,
		`{"specversion":"1.0","id":"1","source":"s","type":"t","time":null,"subject":null,"data":null}`,
		`{"specversion":"1.0","id":"1","source":"s","type":"t","data_base64":"%%%"}`,
		`{"specversion":"1.0","id":"1","source":"s","type":"t","data_base64":5,"data":{}}`,
		`{"specversion":"1.0","id":"1","source":"s","type":"t","data_base64":"e30=","data":{}}`,
		`{"specversion":"1.0","id":"1","source":"s","type":"t","datacontenttype":"text/xml","data":"<a/>"}`,
		`{"specversion":"1.0","id":"1","source":"s","type":"t","datacontenttype":[],"data":1}`,
		`{"specversion":"1.0","id":"1","source":"s","type":"t","x-sillar-attempts":9,"traceparent":{},"ID":"2","data":{}}`,
		`{"specversion":"1.0","id":"1","source":"s","type":"t","":"","data":` + string(deep) + `}`,
	} {
		all = append(all, ForeignMessage{Name: fmt.Sprintf("structured %.60s", b),
			ContentType: "application/CloudEvents+JSON; charset=utf-8", Body: []byte(b)})
	}
	for _, h := range foreignHeaders(prefix) {
		all = append(all, ForeignMessage{Name: fmt.Sprintf("headers %.60q", h), ContentType: "application/json", Headers: h,
			Body: body})
	}
	return all
}

// foreignHeaders returns odd headers, of one message each.
func foreignHeaders(prefix string) []map[string]string {
	many := map[string]string{}
	for i := range 500 {
		many[fmt.Sprint("h", i)] = fmt.Sprint(i)
	}
	large := strings.Repeat("x", 40<<10)
	all := []map[string]string{many, {"large": large}, {"a b": "1", "c:d": "2", "é": "ü"}, {"x": "\x00\r\n\xff"},
		{"traceparent": "00-zz", "tracestate": "\xff", "x-correlation-id": strings.Repeat("c", 5000), "baggage": "=;,"},
		{"traceparent": "00-" + strings.Repeat("f", 32) + "-" + strings.Repeat("f", 16) + "-ff"},
		{"CONTENT-TYPE": "text/html", "Content-Encoding": "br"},
	}
	for _, name := range []string{"id", "source", "type", "subject", "time", "specversion", "datacontenttype", "", "a b"} {
		for _, value := range []string{"", " ", "\x00", "\xff\xfe", "-1", "a.b.c", "*", "com.acme.Order", large} {
			all = append(all, map[string]string{prefix + name: value})
		}
	}
	for _, name := range []string{"attempts", "unhandled", "topic", "wait", "delay", "due", "reason", "origin", "slot",
		"key"} {
		for _, value := range []string{"", "-1", "1e9", "1", "99999999999999999999", "\xff", "a.b"} {
			all = append(all, map[string]string{"x-sillar-" + name: value})
		}
	}
	return all
}
