package saga_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/sagamem"
)

// frozen is a store whose calls do not answer while it is frozen, until their context ends.
type frozen struct {
	saga.Store
	until time.Time
}

func (f *frozen) freeze(ctx context.Context) error {
	if time.Now().Before(f.until) {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	return nil
}

func (f *frozen) Claim(ctx context.Context, node string, kinds []saga.Kind, limit int) ([]saga.Claimed, error) {
	return frozenCall(ctx, f, func() ([]saga.Claimed, error) { return f.Store.Claim(ctx, node, kinds, limit) })
}

func (f *frozen) Shapes(ctx context.Context, k saga.Kind) ([]string, error) {
	return frozenCall(ctx, f, func() ([]string, error) { return f.Store.Shapes(ctx, k) })
}

func (f *frozen) Heartbeat(ctx context.Context, node string, d time.Duration) error {
	_, err := frozenCall(ctx, f, func() (int, error) { return 0, f.Store.Heartbeat(ctx, node, d) })
	return err
}

func (f *frozen) Save(ctx context.Context, r saga.Record) error {
	_, err := frozenCall(ctx, f, func() (int, error) { return 0, f.Store.Save(ctx, r) })
	return err
}

func frozenCall[T any](ctx context.Context, f *frozen, call func() (T, error)) (T, error) {
	if err := f.freeze(ctx); err != nil {
		var none T
		return none, err
	}
	return call()
}

func TestFrozenStoreStopsNothingForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		log, text := logged(slog.LevelWarn)
		mem := sagamem.New()
		def := saga.Define("trip", 1, saga.Step("hotel", w.do("hotel")))
		f := &frozen{Store: mem, until: time.Now().Add(2 * time.Second)}
		o := saga.Must(saga.New(f, saga.Config{Logger: log}, def))
		start(t, o)
		other := saga.Must(saga.New(mem, saga.Config{Logger: quiet}, def)) // it starts sagas and runs none
		for i := range 3 {
			h, err := def.Start(t.Context(), other, fmt.Sprint(i), trip{})
			if err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			if _, err := def.Handle(o, h.ID()).Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(begin); took > 15*time.Second {
				t.Errorf("saga %d ended after %v, want at most 15s", i, took)
			}
			f.until = time.Now().Add(time.Duration(i+2) * time.Second)
		}
		if !strings.Contains(text.String(), "deadline exceeded") {
			t.Errorf("logged %s, want the calls that did not answer", text)
		}
	})
}

func TestHandlerThatIgnoresItsContextIsLoggedAndHoldsOneSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, text := logged(slog.LevelWarn)
		release := make(chan struct{})
		deaf := saga.Define("deaf", 1, saga.Step("car", func(context.Context, *saga.Call, *trip) error {
			<-release
			return nil
		}))
		quick := saga.Define("quick", 1, saga.Step("car", (&world{}).do("car")))
		o := saga.Must(saga.New(sagamem.New(), saga.Config{Logger: log, Concurrency: 2}, deaf, quick))
		start(t, o)
		h, err := deaf.Start(t.Context(), o, "deaf", trip{})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second)
		other, err := quick.Start(t.Context(), o, "quick", trip{})
		if err == nil {
			_, err = other.Wait(t.Context())
		}
		if err != nil || !strings.Contains(text.String(), "ignores that its context has ended") {
			t.Errorf("%v, logged %q, want a warning", err, text)
		}
		close(release)
		if _, err := h.Wait(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
