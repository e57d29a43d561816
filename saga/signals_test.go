package saga_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/sagamem"
)

func noteSignal(_ context.Context, _ *saga.Call, s *flow, p string) error {
	s.Log = append(s.Log, p)
	return nil
}

// Of a signal and a timeout that come together exactly one counts, and the sender learns which.
func TestSignalAgainstOnTimeout(t *testing.T) {
	for i := range 15 {
		synctest.Test(t, func(t *testing.T) {
			def := saga.Define("order", 1,
				saga.Await("go", noteSignal).Timeout(time.Minute).OnTimeout(note("timeout")),
				saga.Sleep[flow]("later", time.Minute))
			o := orchestrate(t, sagamem.New(), def)
			h := saga.Must(def.Start(t.Context(), o, "1", flow{}))
			time.Sleep(time.Minute + time.Duration(i%3-1)*time.Nanosecond)
			want := "go"
			if err := def.Signal(t.Context(), o, "1", "go", "go"); errors.Is(err, saga.ErrTooLate) {
				want = "timeout"
			} else if err != nil {
				t.Fatal(err)
			}
			s, err := h.Wait(t.Context())
			wantLog(t, s, err, want)
		})
	}
}

func TestAwaitEachTakesSignalsInOrderAndOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var keys sync.Map
		def := saga.Define("parcels", 1,
			saga.AwaitEach("parcel", func(_ context.Context, c *saga.Call, s *flow, p string) (bool, error) {
				if _, twice := keys.LoadOrStore(c.Key(), p); twice && c.Attempt() == 1 {
					t.Errorf("the key %s is used for two signals", c.Key())
				}
				if p == "c" && c.Attempt() == 1 {
					return false, errors.New("try again")
				}
				s.Log = append(s.Log, p)
				return len(s.Log) == 4, nil
			}).Timeout(24*time.Hour),
			saga.Pivot("close", note("close")))
		store := sagamem.New()
		o := orchestrate(t, store, def)
		h := saga.Must(def.Start(t.Context(), o, "1", flow{}))
		for _, p := range []string{"a", "b", "a", "c", "d"} {
			if err := def.SignalEach(t.Context(), o, "1", "parcel", "event-"+p, p); err != nil {
				t.Fatal(err)
			}
			if p == "b" {
				time.Sleep(time.Minute)
			}
		}
		s, err := h.Wait(t.Context())
		wantLog(t, s, err, "a", "b", "c", "d", "close")
		if err := def.Signal(t.Context(), o, "1", "parcel", "e"); err == nil || errors.Is(err, saga.ErrFinished) {
			t.Errorf("Signal to an AwaitEach: %v, want an error that names SignalEach", err)
		}
	})
}

func TestSignalsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		def := saga.Define("many", 1, saga.Await("start", noteSignal),
			saga.AwaitEach("each", func(context.Context, *saga.Call, *flow, string) (bool, error) { return false, nil }))
		o := orchestrate(t, sagamem.New(), def)
		saga.Must(def.Start(t.Context(), o, "1", flow{}))
		var err error
		for i := 0; err == nil && i <= saga.MaxSignals; i++ {
			err = def.SignalEach(t.Context(), o, "1", "each", fmt.Sprint(i), "x")
		}
		if !errors.Is(err, saga.ErrSignals) {
			t.Errorf("after MaxSignals: %v, want ErrSignals", err)
		}
	})
}

func TestSignalWithStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		def := saga.Define("order", 1, saga.Await("paid", noteSignal), saga.Await("shipped", noteSignal))
		o := orchestrate(t, sagamem.New(), def)
		h, err := def.SignalWithStart(t.Context(), o, "1", flow{[]string{"by the event"}}, "shipped", "shipped")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := def.SignalWithStart(t.Context(), o, "1", flow{}, "paid", "paid"); err != nil { // another state
			t.Fatal(err)
		}
		s, err := h.Wait(t.Context())
		wantLog(t, s, err, "by the event", "paid", "shipped")
		if _, err := def.SignalWithStart(t.Context(), o, "1", flow{}, "paid", "paid"); err != nil {
			t.Errorf("the same event again: %v", err)
		}
		if _, err := def.SignalWithStart(t.Context(), o, "2", flow{}, "none", "x"); err == nil {
			t.Error("a signal that no step awaits started a saga")
		}
	})
}

// Each signal of an AwaitEach has takeovers of its own, as it has attempts.
func TestAwaitEachOutlivesANodeForEachSignal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := sagamem.New()
		var mu sync.Mutex
		var last *flaky
		died := map[string]bool{}
		def := saga.Define("parcels", 1, saga.AwaitEach("parcel", func(ctx context.Context, c *saga.Call, s *flow,
			p string) (bool, error) {
			mu.Lock()
			first := !died[p]
			died[p] = true
			if first { // the node that handles it is cut off
				last.down.Store(true)
			}
			mu.Unlock()
			if first {
				<-ctx.Done()
				return false, ctx.Err()
			}
			s.Log = append(s.Log, p)
			return len(s.Log) == 3, nil
		}).HandlerTimeout(time.Hour))
		launch := func() *saga.Orchestrator {
			node := &flaky{Store: mem}
			mu.Lock()
			last = node
			mu.Unlock()
			o := saga.Must(saga.New(node, saga.Config{Logger: quiet, MaxTakeovers: 1}, def))
			start(t, o)
			return o
		}
		first := launch()
		if _, err := def.Start(t.Context(), first, "1", flow{}); err != nil {
			t.Fatal(err)
		}
		client := saga.Must(saga.New(mem, saga.Config{Logger: quiet}, def))
		for _, p := range []string{"a", "b", "c"} {
			if err := def.SignalEach(t.Context(), client, "1", "parcel", p, p); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Second) // the node has it
			launch()
			time.Sleep(time.Minute)
		}
		s, err := def.Handle(client, "1").Wait(t.Context())
		wantLog(t, s, err, "a", "b", "c")
	})
}
