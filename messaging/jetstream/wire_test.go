package jetstream

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/driver"
)

// The filters of a group contain none of each other, whatever it had already.
func TestFiltersOfAGroupDoNotOverlap(t *testing.T) {
	b := &Broker{cfg: Config{Stream: "s"}}
	for _, c := range []struct {
		have, patterns, want []string
	}{
		{nil, []string{"a.b", "a.*"}, []string{"s.a.*", "s_retry.g"}},
		{nil, []string{"a.#"}, []string{"s.a", "s.a.>", "s_retry.g"}},
		{nil, []string{"#"}, []string{"s.>", "s_retry.g"}},
		{[]string{"s.a", "s_retry.g"}, []string{"b", "*"}, []string{"s.*", "s_retry.g"}},
		{[]string{"s.a.>", "s.b"}, nil, []string{"s.a.>", "s.b", "s_retry.g"}},
	} {
		got, err := b.filters("g", c.patterns, c.have)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%q with %q: got %q, %v, want %q", c.have, c.patterns, got, err, c.want)
		}
	}
}

// A foreign message without CloudEvents' headers has the topic of its subject; one with a type of its own keeps that as
// a header.
func TestDecodeForeign(t *testing.T) {
	b := &Broker{cfg: Config{Stream: "s"}}
	e := b.decode(&nats.Msg{Subject: "s.a.b", Data: []byte("x"), Header: nats.Header{"Nats-Msg-Id": {"7"},
		"X-Tenant":             {"50%"},
		"Nats-Expected-Stream": {"s"}, "ce-type": {"com.acme.b"}, "ce-extension": {"1"}, "x-sillar-attempts": {"9"},
		"none": {}}})
	want := map[string]string{"x-tenant": "50%", "cloudevents_type": "com.acme.b", "cloudevents_extension": "1"}
	if e.Type != "a.b" || e.ID != "7" || string(e.Body) != "x" || !maps.Equal(e.Headers, want) {
		t.Errorf("got %+v", e)
	}
	if e := b.decode(&nats.Msg{Subject: "s.a", Header: nats.Header{headerTopic: {"secret"}}}); e.Type != "a" ||
		e.ID != "" {
		t.Errorf("got %+v", e)
	}
	moved := b.copy("s_retry.g", "retry", "g", 1, time.Now(), messaging.Envelope{Type: "a"})
	if e := b.decode(moved); e.Type != "a" || e.ID != "" {
		t.Errorf("moved without an id: got %+v", e)
	}
}

func FuzzEscape(f *testing.F) {
	for _, s := range []string{"", " ", "a b", "%", "%zz", "a\x00\r\nb", "\xff", "ñ%41", "traceparent"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, escaped := range []string{escape(s), escapeName(s)} {
			if got := unescape(escaped); got != s {
				t.Errorf("%q escaped as %q comes back as %q", s, escaped, got)
			}
			for i := range len(escaped) {
				if escaped[i] < ' ' || escaped[i] >= 0x7f {
					t.Errorf("%q escaped has the byte %#x", s, escaped[i])
				}
			}
		}
	})
}

// Whatever an event's headers say, they do not change the event, and the server reads them back as they were.
func FuzzEncode(f *testing.F) {
	f.Add("a", "x-tenant", "blue")
	f.Add("a.b", "nats-rollup", "all")
	f.Add("t", "ce-id", "\r\nNats-Msg-Id: 1")
	f.Fuzz(func(t *testing.T, topic, name, value string) {
		e, err := driver.Fill(t.Context(),
			messaging.Envelope{Type: topic, ID: "1", Headers: map[string]string{name: value}}, "src", nil)
		if err != nil {
			return // an event that no broker takes
		}
		b := &Broker{cfg: Config{Stream: "s"}}
		m, err := b.encode(e)
		if err != nil {
			return // refused, which is what other tests look at
		}
		got := b.decode(m)
		if got.ID != "1" || got.Type != topic || got.Source != "src" || m.Header.Get("Nats-Rollup") != "" {
			t.Fatalf("%q: %q came back as %+v", name, value, got)
		}
		for k, v := range e.Headers {
			if !reserved(k) && got.Headers[k] != v {
				t.Fatalf("header %q: %q came back as %q", k, v, got.Headers[k])
			}
		}
	})
}
