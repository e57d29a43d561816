package integration

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/memory"
	"github.com/sillar-go/sillar/messaging/outbox"
	"github.com/sillar-go/sillar/saga"
)

// place stores an entity, its event and a saga.
func (p *parts) place(ctx context.Context, id string) error {
	return p.db.InTx(ctx, func(ctx context.Context) error {
		if _, err := p.products.Create(ctx, product{Name: id + strings.Repeat("x", 3000)},
			func(ctx context.Context, _ *product) error {
				return p.outbox.Publish(ctx, "placed", id, messaging.WithID(id), messaging.WithKey("all"))
			}); err != nil {
			return err
		}
		_, err := trip.Start(ctx, p.sagas, id, id)
		return err
	})
}

// A disk fills up while transactions store entities, events and sagas. What was refused has left nothing, and what was
// committed is published and runs to its end as soon as there is room again, without a restart. The limit of pages is
// SQLite's own; it answers as a full disk does.
func TestFullDiskLosesNothing(t *testing.T) {
	p := open(t, "sqlite:"+filepath.Join(t.TempDir(), "full.db")+"?_pragma=max_page_count(80)")
	place := func(id string) error { return p.place(t.Context(), id) }
	var placed []string
	var refusal error
	for i := 0; refusal == nil; i++ {
		if i == 1000 {
			t.Fatal("the disk does not fill up")
		}
		id := fmt.Sprint("trip-", i)
		if refusal = place(id); refusal == nil {
			placed = append(placed, id)
		}
	}
	for range 5 {
		if err := place("refused"); err == nil || !strings.Contains(err.Error(), "full") {
			t.Fatalf("on a full disk: %v; before: %v", err, refusal)
		}
	}
	if n := p.traces(t); len(placed) < 3 || n != int64(3*len(placed)) {
		t.Fatalf("%d rows of %d transactions that were committed", n, len(placed))
	}

	broker := memory.Must(memory.New(memory.Config{Source: "test", Logger: quiet}))
	defer broker.Close()
	s, err := broker.Subscribe(t.Context(), messaging.Subscription{Group: "g", Patterns: []string{"placed"},
		Prefetch: 1000})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	relay := outbox.Must(outbox.NewRelay(p.outbox, broker, outbox.RelayConfig{Logger: quiet, Poll: 20 * time.Millisecond}))
	done := make(chan error, 2)
	go func() { done <- relay.Run(ctx) }()
	go func() { done <- p.sagas.Run(ctx) }()

	reported := func(want []string) {
		t.Helper()
		within, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		var got []string
		for len(got) < len(want) {
			d, err := s.Receive(within)
			if err != nil {
				t.Fatalf("reported %v, then %v", got, err)
			}
			if err := d.Ack(within); err != nil {
				t.Fatal(err)
			}
			if id := d.Envelope().ID; !slices.Contains(got, id) { // at least once
				got = append(got, id)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("reported %v, want %v", got, want)
		}
		for _, id := range want {
			for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
				r, err := p.sagas.Get(t.Context(), id)
				if err == nil && r.Status == saga.Completed {
					break
				}
				if time.Now().After(end) {
					t.Fatalf("saga %s: %+v, %v", id, r, err)
				}
			}
		}
	}
	time.Sleep(300 * time.Millisecond) // relay and orchestrator meet the full disk, too
	if err := p.db.Exec(t.Context(), "PRAGMA max_page_count = 100000"); err != nil {
		t.Fatal(err)
	}
	reported(placed)
	if err := place("refused"); err != nil {
		t.Fatalf("there is room again: %v", err)
	}
	reported([]string{"refused"})
	stop()
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
