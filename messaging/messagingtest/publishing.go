package messagingtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sillar-go/sillar/internal/correlation"
	"github.com/sillar-go/sillar/messaging"
)

func publishAndHandle(e *env) {
	e.bind("g", "orders.created")
	got := make(chan messaging.Message[order], 1)
	var cid string
	e.route(func(r *messaging.Router) {
		messaging.Handle(r.Group("g", messaging.GroupConfig{}), "orders.created",
			func(ctx context.Context, m messaging.Message[order]) error {
				cid = correlation.From(ctx)
				got <- m
				return nil
			})
	})
	e.must(e.Publish(correlation.With(e.ctx, "c-1"), "orders.created", order{"42"}))
	select {
	case m := <-got:
		if m.Data.ID != "42" || m.Type != "orders.created" || m.Attempt != 1 || m.Source == "" || cid != "c-1" {
			e.Fatalf("got %+v, correlation id %q", m, cid)
		}
	case <-time.After(e.f.Patience):
		e.Fatal("the message did not arrive")
	}
	e.must(e.Health(e.ctx))
}

// A batch arrives in order, and the error names the entries that did not.
func batch(e *env) {
	s := e.subscribe("g", 200, "a")
	var events []messaging.Envelope
	for i := range 100 {
		events = append(events, messaging.Envelope{Type: "a", ID: fmt.Sprint(i), Key: "k", Body: []byte("{}")})
	}
	e.must(e.PublishBatch(e.ctx, events))
	for i := range events {
		d := e.receive(s)
		if d.Envelope().ID != fmt.Sprint(i) {
			e.Fatalf("message %d has the id %s", i, d.Envelope().ID)
		}
		e.must(d.Ack(e.ctx))
	}
	// A large one in which every third goes wrong: each error belongs to its message, and the others arrive, in order.
	mixedBatch(e, s)
	e.must(e.PublishBatch(e.ctx, nil))
	e.must(s.Close())
}

// mixedBatch publishes good and bad events at once.
func mixedBatch(e *env, s messaging.Stream) {
	var mixed []messaging.Envelope
	for i := range 350 {
		m := messaging.Envelope{Type: "a", ID: fmt.Sprint("mixed-", i), Key: "k", Body: []byte("{}")}
		switch i % 6 {
		case 0:
			m.Type = "bad topic"
		case 3:
			m.Type = "nobody"
		}
		mixed = append(mixed, m)
	}
	err := e.PublishBatch(e.ctx, mixed)
	var b *messaging.BatchError
	if !errors.As(err, &b) || len(b.Errors) != len(mixed) {
		e.Fatalf("a mixed batch: %v", err)
	}
	for i, m := range mixed {
		want := map[string]error{"bad topic": messaging.ErrInvalid, "nobody": messaging.ErrUnroutable}[m.Type]
		if m.Type == "nobody" && !e.features.Unroutable {
			want = nil
		}
		if !errors.Is(b.Errors[i], want) {
			e.Fatalf("message %d of a mixed batch, to %q: %v", i, m.Type, b.Errors[i])
		}
		if want == nil && m.Type == "a" {
			d := e.receive(s)
			if d.Envelope().ID != m.ID {
				e.Fatalf("of a mixed batch %s comes, want %s", d.Envelope().ID, m.ID)
			}
			e.must(d.Ack(e.ctx))
		}
	}
}

// Everything of an envelope arrives, and arrives again after a retry.
func envelopeSurvives(e *env) {
	s := e.subscribe("g", 1, "a.b")
	want := messaging.Envelope{ID: "id-1", Type: "a.b", Source: "here", Time: time.Date(2026, 1, 2, 3, 4, 5, 6000,
		time.UTC), Key: "k",
		ContentType: "application/octet-stream", Headers: map[string]string{"x-tenant": "blue",
			"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
		Body: []byte{0, 1, 2, 255}}
	e.must(e.PublishBatch(e.ctx, []messaging.Envelope{want}))
	check := func(got messaging.Envelope) {
		e.Helper()
		if got.ID != want.ID || got.Type != want.Type || got.Source != want.Source || !got.Time.Equal(want.Time) ||
			got.Key != want.Key ||
			got.ContentType != want.ContentType || !slices.Equal(got.Body, want.Body) || !maps.Equal(got.Headers, want.Headers) {
			e.Fatalf("got  %+v\nwant %+v", got, want)
		}
	}
	d := e.receive(s)
	check(d.Envelope())
	e.must(d.Retry(e.ctx, 0, errBoom))
	d = e.receive(s)
	check(d.Envelope())
	e.must(d.DeadLetter(e.ctx, errBoom))
	check(e.dead("g", 1)[0].Envelope)
	e.must(s.Close())
}

var refusedHeaders = map[string]messaging.Envelope{
	"an empty name": {Headers: map[string]string{"": "x"}},
	"a long name":   {Headers: map[string]string{strings.Repeat("n", 256): "x"}},
	"too much":      {Headers: map[string]string{"a": strings.Repeat("x", messaging.MaxHeaders)}},
	"a long id":     {ID: strings.Repeat("i", 256)},
	"a long type":   {ContentType: strings.Repeat("c", 256)},
	"a long source": {Source: strings.Repeat("s", 256)},
	"a long key":    {Key: strings.Repeat("k", messaging.MaxHeaders+1)},
}

// Headers that pretend, that are odd, and that are too much.
func hostileHeaders(e *env) {
	s := e.subscribe("g", 1, "a")
	odd := map[string]string{"empty": "", "control": "a\x00\r\nb", "bytes": "\xff\xfe", "long": strings.Repeat("x", 8<<10),
		"ünï": "ö", "x y=z": "1"}
	headers := maps.Clone(odd)
	for _, name := range []string{"cloudevents_id", "cloudEvents_type", "cloudEvents:source", "cloudevents_time",
		"x-sillar-attempts", "x-sillar-origin", "x-delivery-count", "x-death"} {
		headers[name] = "99"
	}
	e.must(e.PublishBatch(e.ctx, []messaging.Envelope{{ID: "id-1", Type: "a", Source: "here", Headers: headers,
		Body: []byte("1")}}))
	d := e.receive(s)
	got := d.Envelope()
	if got.ID != "id-1" || got.Type != "a" || got.Source != "here" || got.Time.Year() < 2000 || d.Attempt() != 1 {
		e.Errorf("headers changed the event: %+v, attempt %d", got, d.Attempt())
	}
	for name, value := range odd {
		if got.Headers[name] != value {
			e.Errorf("header %q is %.20q, want %.20q", name, got.Headers[name], value)
		}
	}
	e.must(d.Ack(e.ctx))
	for what, bad := range refusedHeaders {
		bad.Type = "a"
		if err := e.PublishBatch(e.ctx, []messaging.Envelope{bad}); !errors.Is(err, messaging.ErrInvalid) {
			e.Errorf("%s: %v", what, err)
		}
	}
	largest := map[string]string{"a": strings.Repeat("x", messaging.MaxHeaders-1000)}
	e.must(e.PublishBatch(e.ctx, []messaging.Envelope{{Type: "a", Headers: largest}}))
	e.must(e.receive(s).Ack(e.ctx))
	e.must(s.Close())
}

func unroutable(e *env) {
	switch err := e.Publish(e.ctx, "nobody.listens", 1); {
	case e.features.Unroutable && !errors.Is(err, messaging.ErrUnroutable):
		e.Fatalf("publishing what no queue takes: %v", err)
	case !e.features.Unroutable && err != nil:
		e.Fatalf("publishing what no queue takes, which is not declared to be noticed: %v", err)
	}
	e.bind("g", "nobody.listens")
	e.publish("nobody.listens", 1)
	if err := e.Publish(e.ctx, "no*topic", 1); !errors.Is(err, messaging.ErrInvalid) {
		e.Fatalf("publishing to a pattern: %v", err)
	}
}

func patterns(e *env) {
	topics := []string{"a", "a.b", "a.b.c", "b.b", "a.c"}
	for i, c := range []struct {
		patterns []string
		want     []string
	}{
		{[]string{"a.*"}, []string{"a.b", "a.c"}},
		{[]string{"a.#"}, []string{"a", "a.b", "a.b.c", "a.c"}},
		{[]string{"*.b"}, []string{"a.b", "b.b"}},
		{[]string{"#.c"}, []string{"a.b.c", "a.c"}},
		{[]string{"#"}, topics},
		{[]string{"a.b", "a.*", "#.b"}, []string{"a.b", "a.c", "b.b"}}, // one copy a queue
		{[]string{"a.b", "a.*", "a.#"}, []string{"a", "a.b", "a.b.c", "a.c"}},
	} {
		if !e.features.AnyHash && slices.ContainsFunc(c.patterns, hashBefore) {
			_, err := e.Subscribe(e.ctx, messaging.Subscription{Group: fmt.Sprint("g", i), Patterns: c.patterns})
			if !errors.Is(err, messaging.ErrInvalid) {
				e.Errorf("patterns %v, which are not declared: %v", c.patterns, err)
			}
			continue
		}
		s := e.subscribe(fmt.Sprint("g", i), 10, c.patterns...)
		for _, topic := range topics {
			if err := e.Publish(e.ctx, topic, 1); err != nil && !errors.Is(err, messaging.ErrUnroutable) {
				e.Fatal(err)
			}
		}
		var got []string
		for range c.want {
			d := e.receive(s)
			got = append(got, d.Envelope().Type)
			e.must(d.Ack(e.ctx))
		}
		e.nothing(s)
		slices.Sort(got)
		if want := slices.Sorted(slices.Values(c.want)); !slices.Equal(got, want) {
			e.Errorf("patterns %v take %v, want %v", c.patterns, got, want)
		}
		e.must(s.Close())
	}
	for _, p := range []string{"a.b*", "#.a.#.b.#"} {
		if _, err := e.Subscribe(e.ctx, messaging.Subscription{Group: "bad", Patterns: []string{p}}); !errors.Is(err,
			messaging.ErrInvalid) {
			e.Errorf("the pattern %s, which none may have: %v", p, err)
		}
	}
	for _, g := range []string{"", "g.dead", "g.retry.5s", "amq.g", strings.Repeat("g", 201)} {
		if _, err := e.Subscribe(e.ctx, messaging.Subscription{Group: g, Patterns: []string{"a"}}); !errors.Is(err,
			messaging.ErrInvalid) {
			e.Errorf("the group %.20q, which none may be: %v", g, err)
		}
	}
}

// hashBefore reports whether a pattern has # elsewhere than at its end.
func hashBefore(pattern string) bool {
	return strings.Contains(strings.TrimSuffix(pattern, "#"), "#")
}

// One publisher's messages of a key are handled in their order by an ordered group, each once.
func orderPerKey(e *env) {
	const keys, each = 10, 30
	e.bind("g", "t")
	done := &log{}
	e.route(func(r *messaging.Router) {
		messaging.HandleRaw(r.Group("g", messaging.GroupConfig{Concurrency: 8, Ordered: true}), "t",
			func(_ context.Context, m messaging.Message[[]byte]) error {
				done.add(m.ID)
				return nil
			})
	})
	var wg sync.WaitGroup
	for k := range keys {
		wg.Go(func() {
			for i := range each {
				if err := e.Publish(e.ctx, "t", i, messaging.WithKey(fmt.Sprint("k", k)),
					messaging.WithID(fmt.Sprintf("%d-%02d", k, i))); err != nil {
					e.Errorf("publish: %v", err)
				}
			}
		})
	}
	wg.Wait()
	e.until("all of every key", func() bool { return done.len() >= keys*each })
	for k := range keys {
		if got := done.of(fmt.Sprint(k, "-")); !slices.IsSorted(got) || len(got) != each {
			e.Errorf("key %d: %v", k, got)
		}
	}
}

// many publishes 10,000 messages from many goroutines; one in ten fails once. Every one is handled.
func many(e *env) {
	const n, publishers = 10_000, 20
	e.bind("g", "many.*")
	done := &log{}
	e.route(func(r *messaging.Router) {
		g := r.Group("g", messaging.GroupConfig{Concurrency: 16,
			Retry: messaging.Retry{Backoff: messaging.Constant(10 * time.Millisecond)}})
		messaging.HandleRaw(g, "many.*", func(_ context.Context, m messaging.Message[[]byte]) error {
			if m.Attempt == 1 && m.ID[len(m.ID)-1] == '7' {
				return errBoom
			}
			done.add(m.ID)
			return nil
		})
	})
	var want []string
	for i := range n {
		want = append(want, fmt.Sprintf("m-%05d", i))
	}
	var wg sync.WaitGroup
	for p := range publishers {
		wg.Go(func() {
			for i := p; i < n; i += publishers {
				if err := e.Publish(e.ctx, "many.x", i, messaging.WithID(want[i])); err != nil {
					e.Errorf("publish %s: %v", want[i], err)
				}
			}
		})
	}
	wg.Wait()
	e.until("10,000 messages", func() bool { return done.len() >= n })
	if got := done.sorted(); !slices.Equal(got, want) {
		e.Fatalf("handled %d messages, want each of %d once", len(got), n)
	}
	e.dead("g", 0)
}

func closed(e *env) {
	s := e.subscribe("g", 1, "a")
	e.must(e.Close())
	if err := e.Publish(e.ctx, "a", 1); !errors.Is(err, messaging.ErrClosed) {
		e.Errorf("Publish: %v", err)
	}
	if _, err := s.Receive(e.ctx); !errors.Is(err, messaging.ErrClosed) {
		e.Errorf("Receive: %v", err)
	}
	if _, err := e.Subscribe(e.ctx, messaging.Subscription{Group: "g"}); !errors.Is(err, messaging.ErrClosed) {
		e.Errorf("Subscribe: %v", err)
	}
	if err := e.Health(e.ctx); !errors.Is(err, messaging.ErrClosed) {
		e.Errorf("Health: %v", err)
	}
	e.must(e.Close())
}

// A full queue makes Publish wait for room, and for no longer than its context.
func backPressure(e *env) {
	if e.f.MaxQueue == 0 {
		e.Skip("not declared")
	}
	s := e.subscribe("g", 1, "a")
	for i := range e.f.MaxQueue {
		e.publish("a", i)
	}
	ctx, cancel := context.WithTimeout(e.ctx, 50*time.Millisecond)
	defer cancel()
	if err := e.Publish(ctx, "a", 1); !errors.Is(err, messaging.ErrBlocked) || !errors.Is(err, context.DeadlineExceeded) {
		e.Fatalf("publishing to a full queue: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- e.Publish(e.ctx, "a", 1) }()
	e.must(e.receive(s).Ack(e.ctx))
	select {
	case err := <-done:
		e.must(err)
	case <-time.After(e.f.Patience):
		e.Fatal("Publish still waits although there is room")
	}
	e.must(s.Close())
}
