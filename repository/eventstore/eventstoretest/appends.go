package eventstoretest

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sillar-go/sillar/internal/correlation"
	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/eventstore"
)

func appendAndLoad(t *testing.T, s eventstore.Store, _ Features) {
	ctx := correlation.With(t.Context(), "c-42")
	begin := time.Now().Add(-time.Second)
	first, err := s.Append(ctx, "a", eventstore.NoStream, eventstore.Event{ID: "own-id", Type: "made", Schema: 3,
		Data:     json.RawMessage(`{"z":1,"a":"é","big":12345678901234567890}`),
		Metadata: map[string]string{"who": "ana"}}, eventstore.Event{Type: "empty"})
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, s, "b", eventstore.NoStream, event(0))
	second := mustAppend(t, s, "a", 2, event(1))
	want := slices.Concat(first, second)
	got := load(t, s, "a", 0)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("Append returned, Load found (-want +got):\n%s", d)
	}
	if len(got) != 3 {
		t.Fatalf("%d events", len(got))
	}
	r := got[0]
	if r.ID != "own-id" || r.Schema != 3 || string(r.Data) != `{"z":1,"a":"é","big":12345678901234567890}` ||
		r.Metadata["who"] != "ana" || r.Metadata[correlation.Header] != "c-42" {
		t.Errorf("the first event came back as %+v, data %s", r, r.Data)
	}
	if r.Time.Before(begin) || r.Time.After(time.Now().Add(time.Second)) || r.Time.Location() != time.UTC {
		t.Errorf("its time is %v", r.Time)
	}
	if got[1].ID == "" || got[1].Schema != 1 || string(got[1].Data) != "null" {
		t.Errorf("defaults: %+v", got[1])
	}
	for i, r := range got {
		if r.Version != int64(i)+1 || i > 0 && r.Position <= got[i-1].Position {
			t.Errorf("event %d has version %d and position %d", i, r.Version, r.Position)
		}
	}
	if rest := load(t, s, "a", 2); len(rest) != 1 || rest[0].Version != 3 {
		t.Errorf("LoadFrom 2: %v", rest)
	}
	if none := load(t, s, "none", 0); len(none) != 0 {
		t.Errorf("a stream that does not exist holds %v", none)
	}
}

func expectedVersion(t *testing.T, s eventstore.Store, _ Features) {
	mustAppend(t, s, "a", eventstore.NoStream, event(1), event(2))
	for _, expected := range []int64{0, 1, 3, 99} {
		_, err := s.Append(t.Context(), "a", expected, event(3), event(4))
		var c *repository.ConflictError
		if !errors.Is(err, repository.ErrConflict) || !errors.As(err, &c) || c.ID != "a" || c.Expected != expected ||
			c.Actual != 2 {
			t.Errorf("Append at version %d: %v", expected, err)
		}
	}
	if _, err := s.Append(t.Context(), "none", 5, event(1)); !errors.Is(err, repository.ErrConflict) {
		t.Errorf("Append at version 5 of a new stream: %v", err)
	}
	if n := len(load(t, s, "a", 0)) + len(load(t, s, "none", 0)); n != 2 {
		t.Errorf("%d events after refused appends, want 2", n)
	}
}

func refuses(t *testing.T, s eventstore.Store, _ Features) {
	refusedAppends(t, s)
	for _, stream := range []string{"a", "a\x00", "\xff"} {
		if n := len(load(t, s, stream, 0)); n != 0 {
			t.Errorf("%d events of %q were stored all the same", n, stream)
		}
	}
	twice := event(1)
	twice.ID = "same"
	mustAppend(t, s, "a", 0, twice)
}

// refusedAppends tries each append that has to be refused.
func refusedAppends(t *testing.T, s eventstore.Store) {
	t.Helper()
	for what, try := range map[string]func() error{
		"no events": func() error { _, err := s.Append(t.Context(), "a", 0); return err },
		"no stream": func() error { _, err := s.Append(t.Context(), "", 0, event(1)); return err },
		"no type":   func() error { _, err := s.Append(t.Context(), "a", 0, eventstore.Event{}); return err },
		"no JSON": func() error {
			_, err := s.Append(t.Context(), "a", 0, event(1), eventstore.Event{Type: "x", Data: json.RawMessage(`{`)})
			return err
		},
		"no UTF-8": func() error {
			_, err := s.Append(t.Context(), "a", 0, eventstore.Event{Type: "x", Data: json.RawMessage("\"\xff\"")})
			return err
		},
		"a stream with NUL": func() error { _, err := s.Append(t.Context(), "a\x00", 0, event(1)); return err },
		"a type of no UTF-8": func() error {
			_, err := s.Append(t.Context(), "a", 0, eventstore.Event{Type: "\xff"})
			return err
		},
		"an id with NUL": func() error {
			_, err := s.Append(t.Context(), "a", 0, eventstore.Event{ID: "\x00", Type: "x"})
			return err
		},
		"schema -1": func() error {
			_, err := s.Append(t.Context(), "a", 0, eventstore.Event{Type: "x", Schema: -1})
			return err
		},
		"version -2": func() error { _, err := s.Append(t.Context(), "a", -2, event(1)); return err },
	} {
		if err := try(); !errors.Is(err, eventstore.ErrAppend) {
			t.Errorf("%s: %v, want ErrAppend", what, err)
		}
	}
}

func oneWinner(t *testing.T, s eventstore.Store, _ Features) {
	for round := range 5 {
		var wg sync.WaitGroup
		var mu sync.Mutex
		won := 0
		for range 16 {
			wg.Go(func() {
				_, err := s.Append(t.Context(), "a", int64(round*2), event(1), event(2))
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					won++
				case !errors.Is(err, repository.ErrConflict):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if won != 1 {
			t.Fatalf("%d of 16 writers won at version %d", won, round*2)
		}
	}
	for i, r := range load(t, s, "a", 0) {
		if r.Version != int64(i)+1 {
			t.Fatalf("version %d at place %d", r.Version, i)
		}
	}
}

func anyVersion(t *testing.T, s eventstore.Store, _ Features) {
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 10 {
				if _, err := s.Append(t.Context(), "a", eventstore.AnyVersion, event(i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := len(load(t, s, "a", 0)); n != 80 {
		t.Errorf("%d events, want 80", n)
	}
}

func uniqueIDs(t *testing.T, s eventstore.Store, _ Features) {
	one := event(1)
	one.ID = "one"
	mustAppend(t, s, "a", eventstore.NoStream, one)
	for stream, expected := range map[string]int64{"a": 1, "b": eventstore.NoStream, "c": eventstore.AnyVersion} {
		if _, err := s.Append(t.Context(), stream, expected, event(2), one); !errors.Is(err, repository.ErrUnique) {
			t.Errorf("an id again, in stream %s: %v, want ErrUnique", stream, err)
		}
	}
	if _, err := s.Append(t.Context(), "d", eventstore.NoStream, eventstore.Event{ID: "x", Type: "y"},
		eventstore.Event{ID: "x", Type: "y"}); !errors.Is(err, eventstore.ErrAppend) {
		t.Errorf("an id twice in one append: %v, want ErrAppend", err)
	}
	mustAppend(t, s, "b", eventstore.NoStream, event(3)) // what was refused has left nothing
	if n := len(load(t, s, "a", 0)) + len(load(t, s, "b", 0)) + len(load(t, s, "c", 0)) + len(load(t, s, "d", 0)); n != 2 {
		t.Errorf("%d events, want 2", n)
	}
}

// repeatedAppend repeats appends whose outcome might have been unknown.
func repeatedAppend(t *testing.T, s eventstore.Store, f Features) {
	own := func(id string, n int) eventstore.Event { e := event(n); e.ID = id; return e }
	two := []eventstore.Event{own("1", 1), own("2", 2)}
	first := mustAppend(t, s, "a", eventstore.NoStream, two...)
	mustAppend(t, s, "a", 2, own("3", 3))
	last := mustAppend(t, s, "a", eventstore.AnyVersion, own("4", 4))
	mustAppend(t, s, "a", eventstore.AnyVersion, own("5", 5))
	for _, again := range []struct {
		expected int64
		events   []eventstore.Event
		want     []eventstore.Recorded
	}{{eventstore.NoStream, two, first}, {eventstore.AnyVersion, two, first}, {3, []eventstore.Event{own("4", 4)}, last},
		{eventstore.AnyVersion, []eventstore.Event{own("4", 4)}, last}} {
		got, err := s.Append(t.Context(), "a", again.expected, again.events...)
		if d := cmp.Diff(again.want, got); err != nil || d != "" {
			t.Errorf("repeated at version %d: %v, (-want +got):\n%s", again.expected, err, d)
		}
	}
	if f.InTx != nil {
		err := f.InTx(t.Context(), s, func(ctx context.Context) error {
			if got, err := s.Append(ctx, "a", eventstore.NoStream, two...); err != nil || len(got) != 2 {
				t.Errorf("repeated in a transaction: %v, %v", got, err)
			}
			_, err := s.Append(ctx, "in", eventstore.NoStream, event(1))
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	for what, other := range map[string]struct {
		stream   string
		expected int64
		events   []eventstore.Event
	}{
		"with more":            {"a", eventstore.NoStream, append(slices.Clone(two), own("6", 6))},
		"in another order":     {"a", eventstore.NoStream, []eventstore.Event{two[1], two[0]}},
		"at another version":   {"a", 1, two},
		"with another content": {"a", eventstore.NoStream, []eventstore.Event{two[0], own("2", 9)}},
		"to another stream":    {"b", eventstore.AnyVersion, two},
		"to a new stream":      {"b", eventstore.NoStream, two},
		"with ids of our own":  {"a", eventstore.NoStream, []eventstore.Event{event(1), event(2)}},
		"after the end":        {"a", 5, two},
	} {
		_, err := s.Append(t.Context(), other.stream, other.expected, other.events...)
		if !errors.Is(err, repository.ErrUnique) && !errors.Is(err, repository.ErrConflict) {
			t.Errorf("repeated %s: %v, want ErrUnique or ErrConflict", what, err)
		}
	}
	if n := len(load(t, s, "a", 0)) + len(load(t, s, "b", 0)); n != 5 {
		t.Errorf("%d events, want 5", n)
	}
}

// endedContext calls every method with a context that has ended.
func endedContext(t *testing.T, s eventstore.Store, _ Features) {
	callsWithEndedContext(t, s)
	place, err := s.Checkpoint(t.Context(), "p")
	_, kept, serr := s.LoadSnapshot(t.Context(), "a", 1)
	if n := len(load(t, s, "a", 0)); n != 1 || place != "" || kept || err != nil || serr != nil {
		t.Errorf("%d events, checkpoint %q, snapshot %v after calls with a context that had ended (%v, %v)", n, place, kept,
			err, serr)
	}
}

// callsWithEndedContext makes each call with a context that has ended.
func callsWithEndedContext(t *testing.T, s eventstore.Store) {
	t.Helper()
	mustAppend(t, s, "a", eventstore.NoStream, event(1))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for what, call := range map[string]func() error{
		"Append": func() error { _, err := s.Append(ctx, "a", 1, event(2)); return err },
		"Append to any version": func() error {
			_, err := s.Append(ctx, "a", eventstore.AnyVersion, event(2))
			return err
		},
		"LoadFrom": func() error {
			for _, err := range s.LoadFrom(ctx, "a", 0) {
				return err
			}
			return nil
		},
		"Read": func() error { _, _, err := s.Read(ctx, "", 10); return err },
		"Lag":  func() error { _, err := s.Lag(ctx, ""); return err },
		"SaveSnapshot": func() error {
			return s.SaveSnapshot(ctx, eventstore.Snapshot{Stream: "a", Version: 1, Schema: 1, State: json.RawMessage("1")})
		},
		"LoadSnapshot":   func() error { _, _, err := s.LoadSnapshot(ctx, "a", 1); return err },
		"Checkpoint":     func() error { _, err := s.Checkpoint(ctx, "p"); return err },
		"MoveCheckpoint": func() error { return s.MoveCheckpoint(ctx, "p", "", "1") },
	} {
		if err := call(); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want context.Canceled", what, err)
		}
	}
}

func longStream(t *testing.T, s eventstore.Store, _ Features) {
	batch := make([]eventstore.Event, 300)
	for i := range batch {
		batch[i] = event(i)
	}
	for i := range 4 {
		mustAppend(t, s, "a", int64(i*len(batch)), batch...)
	}
	got := load(t, s, "a", -1)
	if inOrder(t, got); len(got) != 1200 {
		t.Errorf("%d events, want 1200", len(got))
	}
	if none, next, err := s.Read(t.Context(), "", -1); len(none) != 0 || next != "" || err != nil {
		t.Errorf("Read of at most -1: %d events, cursor %q, %v", len(none), next, err)
	}
	again := s.LoadFrom(t.Context(), "a", 600)
	for range 2 {
		n := 0
		for _, err := range again {
			if n++; err != nil {
				t.Fatal(err)
			}
		}
		if n != 600 {
			t.Errorf("ranged over again: %d events, want 600", n)
		}
	}
}
