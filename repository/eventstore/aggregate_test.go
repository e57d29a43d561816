package eventstore_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/sillar-go/sillar/internal/killtest"
	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/eventstore"
	"github.com/sillar-go/sillar/repository/eventstore/memevents"
)

func TestMain(m *testing.M) {
	killtest.Main()
	goleak.VerifyTestMain(m)
}

type account struct{ Balance int64 }

type happened interface{ isAccountEvent() }

type deposited struct{ Cents int64 }

type withdrawn struct{ Cents int64 }

func (deposited) isAccountEvent() {}
func (withdrawn) isAccountEvent() {}

func evolve(a account, e happened) account {
	switch e := e.(type) {
	case deposited:
		a.Balance += e.Cents
	case withdrawn:
		a.Balance -= e.Cents
	}
	return a
}

var types = eventstore.Types[happened]{
	eventstore.Type[deposited]("deposited", 2, func(old json.RawMessage) (json.RawMessage, error) {
		var v struct{ Euros int64 }
		if err := json.Unmarshal(old, &v); err != nil {
			return nil, err
		}
		return json.Marshal(deposited{v.Euros * 100})
	}),
	eventstore.Type[withdrawn]("withdrawn", 1),
}

func accounts(t testing.TB, s eventstore.Store,
	cfg eventstore.AggregateConfig) *eventstore.Aggregate[account, happened] {
	t.Helper()
	cfg.Category = "account"
	a, err := eventstore.NewAggregate(s, eventstore.Decider[account, happened]{Evolve: evolve}, types, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func deposit(cents int64) func(context.Context, account) ([]happened, error) {
	return func(context.Context, account) ([]happened, error) { return []happened{deposited{cents}}, nil }
}

func TestHandleAppendsWhatTheAggregateDecides(t *testing.T) {
	a := accounts(t, memevents.New(memevents.Config{}), eventstore.AggregateConfig{})
	if _, _, err := a.Load(t.Context(), "1"); !errors.Is(err, repository.ErrNotFound) {
		t.Errorf("Load of none: %v", err)
	}
	if s, err := a.Handle(t.Context(), "1", deposit(500)); err != nil || s.Balance != 500 {
		t.Fatalf("%+v, %v", s, err)
	}
	poor := errors.New("not enough")
	_, err := a.Handle(t.Context(), "1", func(_ context.Context, s account) ([]happened, error) {
		if s.Balance < 900 {
			return nil, poor
		}
		return []happened{withdrawn{900}}, nil
	})
	if !errors.Is(err, poor) {
		t.Errorf("a refusal: %v", err)
	}
	if s, v, err := a.Load(t.Context(), "1"); err != nil || s.Balance != 500 || v != 1 {
		t.Errorf("%+v at version %d, %v", s, v, err)
	}
}

func TestHandleLosesNoUpdate(t *testing.T) {
	for _, every := range []int{0, 7} {
		s := memevents.New(memevents.Config{})
		a := accounts(t, s, eventstore.AggregateConfig{SnapshotEvery: every})
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				for range 20 {
					if _, err := a.Handle(t.Context(), "1", deposit(1)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if got, v, err := a.Load(t.Context(), "1"); err != nil || got.Balance != 200 || v != 200 {
			t.Errorf("snapshots every %d: %+v at version %d, %v", every, got, v, err)
		}
		_, found, _ := s.LoadSnapshot(t.Context(), a.Stream("1"), 1)
		if found != (every > 0) {
			t.Errorf("snapshots every %d: found %v", every, found)
		}
	}
}

// Handle goes on until the context ends, with a pause between attempts, and then says both; a conflict that is decide's
// own ends it at once.
func TestHandleIsBoundedByTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memevents.New(memevents.Config{})
		a := accounts(t, s, eventstore.AggregateConfig{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		runs := 0
		_, err := a.Handle(ctx, "1", func(context.Context, account) ([]happened, error) {
			runs++
			if _, err := s.Append(ctx, a.Stream("1"), eventstore.AnyVersion, eventstore.Event{Type: "deposited", Schema: 2,
				Data: json.RawMessage(`{"Cents":1}`)}); err != nil {
				return nil, err
			}
			return []happened{deposited{1}}, nil
		})
		if !errors.Is(err, repository.ErrConflict) || !errors.Is(err, context.DeadlineExceeded) || runs < 600 || runs > 6000 {
			t.Errorf("%d attempts in a minute: %v", runs, err)
		}
		for _, id := range []string{"other", "1"} {
			runs = 0
			_, err = a.Handle(t.Context(), "1", func(context.Context, account) ([]happened, error) {
				runs++
				return nil, &repository.ConflictError{ID: id}
			})
			if !errors.Is(err, repository.ErrConflict) || runs != 1 {
				t.Errorf("a conflict of decide's own: %d attempts, %v", runs, err)
			}
		}
	})
}

func TestSnapshotOfAnotherSchemaIsIgnored(t *testing.T) {
	s := memevents.New(memevents.Config{})
	old := accounts(t, s, eventstore.AggregateConfig{SnapshotEvery: 1})
	if _, err := old.Handle(t.Context(), "1", deposit(5)); err != nil {
		t.Fatal(err)
	}
	if err := s.SaveSnapshot(t.Context(), eventstore.Snapshot{Stream: "account-1", Version: 2, Schema: 1,
		State: json.RawMessage(`{"Balance":666}`)}); err != nil {
		t.Fatal(err)
	}
	if got, _, err := accounts(t, s, eventstore.AggregateConfig{SnapshotEvery: 1, SnapshotSchema: 2}).Load(t.Context(),
		"1"); err != nil || got.Balance != 5 {
		t.Errorf("%+v, %v", got, err)
	}
}

// A snapshot is trusted only where its last event is in the stream: one that is ahead of it, of other events, or that
// does not say, is passed over.
func TestSnapshotThatDoesNotFitIsIgnored(t *testing.T) {
	source, s := memevents.New(memevents.Config{}), memevents.New(memevents.Config{})
	cfg := eventstore.AggregateConfig{SnapshotEvery: 1, Logger: slog.New(slog.DiscardHandler)}
	for range 5 {
		if _, err := accounts(t, source, cfg).Handle(t.Context(), "1", deposit(100)); err != nil {
			t.Fatal(err)
		}
	}
	ahead, found, err := source.LoadSnapshot(t.Context(), "account-1", 1)
	if err != nil || !found || ahead.Version != 5 {
		t.Fatalf("%+v, %v, %v", ahead, found, err)
	}
	if err := s.SaveSnapshot(t.Context(), ahead); err != nil {
		t.Fatal(err)
	}
	for n := int64(1); n <= 8; n++ {
		if got, err := accounts(t, s, cfg).Handle(t.Context(), "1", deposit(1)); err != nil || got.Balance != n {
			t.Errorf("after %d events: %+v, %v", n, got, err)
		}
		if got, version, err := accounts(t, s, cfg).Load(t.Context(), "1"); err != nil || got.Balance != n || version != n {
			t.Errorf("after %d events: %+v at %d, %v", n, got, version, err)
		}
	}
	if err := s.SaveSnapshot(t.Context(), eventstore.Snapshot{Stream: "account-1", Version: 9, Schema: 1,
		State: json.RawMessage(`{"Balance":666}`)}); err != nil {
		t.Fatal(err)
	}
	if got, version, err := accounts(t, s, cfg).Load(t.Context(), "1"); err != nil || got.Balance != 8 || version != 8 {
		t.Errorf("beside a snapshot of another form: %+v at %d, %v", got, version, err)
	}
}

func TestUpcastAndUnknown(t *testing.T) {
	s := memevents.New(memevents.Config{})
	a := accounts(t, s, eventstore.AggregateConfig{})
	if _, err := s.Append(t.Context(), "account-1", 0, eventstore.Event{Type: "deposited", Schema: 1,
		Data: json.RawMessage(`{"Euros":3}`)}); err != nil {
		t.Fatal(err)
	}
	if got, _, err := a.Load(t.Context(), "1"); err != nil || got.Balance != 300 {
		t.Errorf("an old event: %+v, %v", got, err)
	}
	for i, e := range []eventstore.Event{{Type: "closed"}, {Type: "withdrawn", Schema: 9}} {
		stream := fmt.Sprint("account-x", i)
		if _, err := s.Append(t.Context(), stream, 0, e); err != nil {
			t.Fatal(err)
		}
		if _, _, err := a.Load(t.Context(), fmt.Sprint("x", i)); !errors.Is(err, eventstore.ErrType) {
			t.Errorf("%+v: %v, want ErrType", e, err)
		}
	}
}

func TestTypesAreChecked(t *testing.T) {
	for name, types := range map[string]eventstore.Types[happened]{
		"none":                 {},
		"no upcaster":          {eventstore.Type[deposited]("deposited", 2)},
		"twice":                {eventstore.Type[deposited]("a", 1), eventstore.Type[deposited]("b", 1)},
		"a name twice":         {eventstore.Type[deposited]("a", 1), eventstore.Type[withdrawn]("a", 1)},
		"not of the interface": {eventstore.Type[account]("a", 1)},
	} {
		_, err := eventstore.NewAggregate(memevents.New(memevents.Config{}),
			eventstore.Decider[account, happened]{Evolve: evolve}, types, eventstore.AggregateConfig{Category: "a"})
		if err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func Example() {
	accounts := eventstore.Must(eventstore.NewAggregate(memevents.New(memevents.Config{}),
		eventstore.Decider[account, happened]{Evolve: evolve}, types, eventstore.AggregateConfig{Category: "account"}))
	ctx := context.Background()
	_, _ = accounts.Handle(ctx, "ana", func(context.Context, account) ([]happened, error) {
		return []happened{deposited{500}}, nil
	})
	s, err := accounts.Handle(ctx, "ana", func(_ context.Context, a account) ([]happened, error) {
		if a.Balance < 200 {
			return nil, errors.New("not enough")
		}
		return []happened{withdrawn{200}}, nil
	})
	fmt.Println(s.Balance, err)
	// Output: 300 <nil>
}
