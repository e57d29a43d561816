package messaging_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sillar-go/sillar/messaging"
)

// upper is a codec of strings.
type upper struct{}

func (upper) ContentType() string { return "text/x-upper" }

func (upper) Encode(payload any) ([]byte, error) {
	s, ok := payload.(string)
	if !ok {
		return nil, fmt.Errorf("a %T is no string", payload)
	}
	return []byte(strings.ToUpper(s)), nil
}

func (upper) Decode(body []byte, into any) error {
	s, ok := into.(*string)
	if !ok {
		return fmt.Errorf("a %T is no *string", into)
	}
	*s = strings.ToLower(string(body))
	return nil
}

// The content type of a body selects how it is decoded; without a codec it is a dead letter and never taken for JSON.
func TestContentTypeSelectsCodec(t *testing.T) {
	in(t, messaging.RouterConfig{Codecs: []messaging.Codec{upper{}}}, func(w *world) {
		t := w.t
		checkCodecs(t, w)
		if d := w.dead("g", 1)[0]; !strings.Contains(d.Reason, "application/x-protobuf") ||
			!strings.Contains(d.Reason, messaging.ErrDecode.Error()) {
			t.Errorf("reason %q", d.Reason)
		}
		for what, opt := range map[string]messaging.Option{"no codec": messaging.WithContentType("application/x-protobuf"),
			"wrong type": messaging.WithCodec(upper{})} {
			if err := w.Publish(t.Context(), "text", 1, opt); !errors.Is(err, messaging.ErrInvalid) {
				t.Errorf("publish with %s: %v, want ErrInvalid", what, err)
			}
		}
	})
	if _, err := messaging.NewRouter(nil, messaging.RouterConfig{}); err == nil {
		t.Error("a router without a subscriber was made")
	}
}

// checkCodecs publishes and handles messages of each content type.
func checkCodecs(t *testing.T, w *world) {
	t.Helper()
	var got []string
	note := func(what string, data any, e messaging.Envelope) error {
		got = append(got, fmt.Sprintf("%s %v %s", what, data, e.ContentType))
		return nil
	}
	g := w.r.Group("g", messaging.GroupConfig{})
	messaging.Handle(g, "text", func(_ context.Context, m messaging.Message[string]) error {
		return note("text", m.Data, m.Envelope)
	})
	messaging.Handle(g, "bytes", func(_ context.Context, m messaging.Message[[]byte]) error {
		return note("bytes", string(m.Data), m.Envelope)
	})
	messaging.Handle(g, "raw", func(_ context.Context, m messaging.Message[json.RawMessage]) error {
		return note("raw", string(m.Data), m.Envelope)
	})
	w.start()
	w.publish("text", "Abc", messaging.WithCodec(upper{}))
	w.publish("text", "json", messaging.WithContentType("application/vnd.acme+json; charset=utf-8"))
	w.publish("bytes", []byte{0x41, 0x42}, messaging.WithContentType("image/png"))
	w.publish("raw", map[string]int{"a": 1})
	w.publish("text", []byte(`"untyped"`), messaging.WithContentType("text/plain"))
	w.publish("text", []byte(`"1"`), messaging.WithContentType("application/x-protobuf"))
	w.sleep(time.Hour)
	want := []string{"text abc text/x-upper", "text json application/vnd.acme+json; charset=utf-8", "bytes AB image/png",
		`raw {"a":1} application/json`, "text untyped text/plain"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A CloudEvent in structured mode is the same to a handler as one in binary mode.
func TestStructuredCloudEvents(t *testing.T) {
	in(t, messaging.RouterConfig{}, func(w *world) {
		t := w.t
		var got []messaging.Message[order]
		seen := &seen{ids: map[string]bool{}}
		g := w.r.Group("g", messaging.GroupConfig{Dedup: seen, Retry: messaging.Retry{Attempts: 2}})
		messaging.Handle(g, "orders.created", func(_ context.Context, m messaging.Message[order]) error {
			got = append(got, m)
			if m.Data.ID == "fails" {
				return errBoom
			}
			return nil
		})
		var raw []string
		messaging.HandleRaw(g, "other", func(_ context.Context, m messaging.Message[[]byte]) error {
			raw = append(raw, m.ContentType+" "+string(m.Data))
			return nil
		})
		w.start()
		structured := messaging.WithContentType("Application/CloudEvents+JSON; charset=UTF-8")
		send := func(topic, event string) { w.publish(topic, []byte(event), structured) }
		for range 2 { // the second is a duplicate by the event's own id
			send("orders.created",
				`{"specversion":"1.0","id":"1","source":"/acme","type":"com.acme.order.created.v1","subject":"k",
				"time":"2026-01-02T03:04:05+01:00","tenant":"blue","data":{"ID":"42"}}`)
		}
		send("other",
			`{"specversion":"1.0","id":"2","source":"/acme","type":"t","datacontenttype":"text/plain","data":"hello"}`)
		send("other",
			`{"specversion":"1.0","id":"3","source":"/acme","type":"t","datacontenttype":"image/png","data_base64":"QUI="}`)
		send("orders.created", `{"specversion":"1.0","id":"4","source":"/acme","type":"t","data":{"ID":"fails"}}`)
		for _, bad := range []string{`{`, `{"specversion":"1.0","id":"5"}`,
			`{"specversion":"1.0","id":5,"source":"a","type":"t"}`} {
			send("orders.created", bad)
		}
		w.sleep(time.Hour)
		if len(got) != 3 {
			t.Fatalf("handled %d, want one, and another one twice", len(got))
		}
		m := got[0]
		if m.Data.ID != "42" || m.ID != "1" || m.Source != "/acme" || m.Key != "k" || m.Type != "orders.created" ||
			m.Header("CloudEvents_Type") != "com.acme.order.created.v1" || m.Header("Tenant") != "blue" ||
			m.ContentType != "application/json" ||
			!m.Time.Equal(time.Date(2026, 1, 2, 2, 4, 5, 0, time.UTC)) {
			t.Errorf("got %+v", m)
		}
		if strings.Join(raw, ", ") != "text/plain hello, image/png AB" {
			t.Errorf("raw: %q", raw)
		}
		for _, d := range w.dead("g", 4) {
			if !strings.HasPrefix(string(d.Body), "{") || !strings.Contains(d.ContentType, "CloudEvents+JSON") {
				t.Errorf("a dead letter is not as it came: %s %s", d.ContentType, d.Body)
			}
		}
	})
}

// A group's timeout ends the context of each attempt; its middleware runs inside the router's.
func TestGroupTimeoutAndMiddleware(t *testing.T) {
	var mu sync.Mutex
	var calls []string
	named := func(name string) messaging.Middleware {
		return func(next messaging.HandlerFunc) messaging.HandlerFunc {
			return func(ctx context.Context, m messaging.Message[[]byte]) error {
				mu.Lock()
				calls = append(calls, name)
				mu.Unlock()
				return next(ctx, m)
			}
		}
	}
	in(t, messaging.RouterConfig{Middleware: []messaging.Middleware{named("router")}}, func(w *world) {
		t := w.t
		slow := w.r.Group("slow", messaging.GroupConfig{Timeout: 3 * time.Second, Retry: messaging.Retry{Attempts: 2,
			Backoff: messaging.Constant(time.Second)},
			Middleware: []messaging.Middleware{named("a"), named("b")}})
		var took []time.Duration
		messaging.HandleRaw(slow, "t", func(ctx context.Context, _ messaging.Message[[]byte]) error {
			start := time.Now()
			<-ctx.Done()
			took = append(took, time.Since(start))
			return ctx.Err()
		})
		checkTimeout(t, w)
		if fmt.Sprint(took) != "[3s 3s]" {
			t.Errorf("attempts took %v", took)
		}
		if got := strings.Join(calls, " "); strings.Count(got, "router a b") != 2 || strings.Count(got, "router") != 3 {
			t.Errorf("middleware ran %q", got)
		}
	})
}

// checkTimeout compares a group that has a timeout with one that has none.
func checkTimeout(t *testing.T, w *world) {
	t.Helper()
	messaging.HandleRaw(w.r.Group("other", messaging.GroupConfig{}), "t",
		func(ctx context.Context, _ messaging.Message[[]byte]) error {
			_, bounded := ctx.Deadline()
			if bounded {
				t.Error("another group has a deadline")
			}
			return nil
		})
	select {
	case <-w.r.Running():
		t.Error("it runs before Run")
	default:
	}
	w.start()
	<-w.r.Running()
	w.publish("t", 1)
	w.sleep(time.Minute)
	if d := w.dead("slow", 1)[0]; d.Attempts != 2 || !strings.Contains(d.Reason, context.DeadlineExceeded.Error()) {
		t.Errorf("%d attempts, reason %q", d.Attempts, d.Reason)
	}
}
