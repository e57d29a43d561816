// Package eventstoretest checks that an adapter keeps the promises of eventstore.Store. An adapter's test calls Run
// with a function that makes an empty store.
package eventstoretest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sillar-go/sillar/internal/correlation"
	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/eventstore"
)

// Features says what an adapter does beyond the port.
type Features struct {
	// InTx runs a function in a transaction of the store's, which ctx carries. Nil: there are none.
	InTx func(ctx context.Context, s eventstore.Store, fn func(ctx context.Context) error) error
}

// Run runs all checks, each on a store of its own.
func Run(t *testing.T, factory func(t testing.TB) eventstore.Store, f Features) {
	t.Helper()
	for _, c := range []struct {
		name  string
		check func(*testing.T, eventstore.Store, Features)
	}{
		{"AppendAndLoad", appendAndLoad},
		{"ExpectedVersion", expectedVersion},
		{"Refuses", refuses},
		{"OneWinner", oneWinner},
		{"AnyVersion", anyVersion},
		{"ReadAll", readAll},
		{"Cursors", cursors},
		{"TailBesideWriters", tailBesideWriters},
		{"LateCommit", lateCommit},
		{"Rollback", rollback},
		{"Snapshots", snapshots},
		{"Checkpoints", checkpoints},
		{"LongStream", longStream},
	} {
		t.Run(c.name, func(t *testing.T) { c.check(t, factory(t), f) })
	}
}

func event(n int) eventstore.Event {
	return eventstore.Event{Type: "counted", Data: json.RawMessage(fmt.Sprintf(`{"n":%d}`, n))}
}

func load(t *testing.T, s eventstore.Store, stream string, after int64) (out []eventstore.Recorded) {
	t.Helper()
	for r, err := range s.LoadFrom(t.Context(), stream, after) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, r)
	}
	return out
}

func mustAppend(t *testing.T, s eventstore.Store, stream string, expected int64, events ...eventstore.Event) []eventstore.Recorded {
	t.Helper()
	r, err := s.Append(t.Context(), stream, expected, events...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func appendAndLoad(t *testing.T, s eventstore.Store, _ Features) {
	ctx := correlation.With(t.Context(), "c-42")
	begin := time.Now().Add(-time.Second)
	first, err := s.Append(ctx, "a", eventstore.New, eventstore.Event{ID: "own-id", Type: "made", Schema: 3, Data: json.RawMessage(`{"z":1,"a":"é","big":12345678901234567890}`),
		Metadata: map[string]string{"who": "ana"}}, eventstore.Event{Type: "empty"})
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, s, "b", eventstore.New, event(0))
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
	if r.ID != "own-id" || r.Schema != 3 || string(r.Data) != `{"z":1,"a":"é","big":12345678901234567890}` || r.Metadata["who"] != "ana" || r.Metadata[correlation.Header] != "c-42" {
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
	mustAppend(t, s, "a", eventstore.New, event(1), event(2))
	for _, expected := range []int64{0, 1, 3, 99} {
		_, err := s.Append(t.Context(), "a", expected, event(3), event(4))
		var c *repository.ConflictError
		if !errors.Is(err, repository.ErrConflict) || !errors.As(err, &c) || c.ID != "a" || c.Expected != expected || c.Actual != 2 {
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
	for what, try := range map[string]func() error{
		"no events": func() error { _, err := s.Append(t.Context(), "a", 0); return err },
		"no stream": func() error { _, err := s.Append(t.Context(), "", 0, event(1)); return err },
		"no type":   func() error { _, err := s.Append(t.Context(), "a", 0, eventstore.Event{}); return err },
		"no JSON": func() error {
			_, err := s.Append(t.Context(), "a", 0, event(1), eventstore.Event{Type: "x", Data: json.RawMessage(`{`)})
			return err
		},
		"version -2": func() error { _, err := s.Append(t.Context(), "a", -2, event(1)); return err },
	} {
		if err := try(); !errors.Is(err, eventstore.ErrAppend) {
			t.Errorf("%s: %v, want ErrAppend", what, err)
		}
	}
	if n := len(load(t, s, "a", 0)); n != 0 {
		t.Errorf("%d events were stored all the same", n)
	}
	twice := event(1)
	twice.ID = "same"
	mustAppend(t, s, "a", 0, twice)
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
				if _, err := s.Append(t.Context(), "a", eventstore.Any, event(i)); err != nil {
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

// drain reads until nothing comes any more.
func drain(t *testing.T, s eventstore.Store, cursor string, limit int) (out []eventstore.Recorded, next string) {
	t.Helper()
	for empty := 0; empty < 2; {
		events, n, err := s.Read(t.Context(), cursor, limit)
		if err != nil {
			t.Fatal(err)
		}
		if len(events) > limit {
			t.Fatalf("%d events at a limit of %d", len(events), limit)
		}
		if len(events) == 0 {
			empty++
			s.Wait(t.Context())
		}
		out, cursor = append(out, events...), n
	}
	return out, cursor
}

// inOrder checks that each stream's events came once and in order.
func inOrder(t *testing.T, events []eventstore.Recorded) map[string]int64 {
	t.Helper()
	last := map[string]int64{}
	for _, e := range events {
		if e.Version != last[e.Stream]+1 {
			t.Fatalf("stream %s: version %d after %d", e.Stream, e.Version, last[e.Stream])
		}
		last[e.Stream] = e.Version
	}
	return last
}

func readAll(t *testing.T, s eventstore.Store, _ Features) {
	for i := range 30 {
		mustAppend(t, s, fmt.Sprint("s", i%3), eventstore.Any, event(i), event(i))
	}
	events, cursor := drain(t, s, "", 7)
	if inOrder(t, events); len(events) != 60 {
		t.Errorf("%d events, want 60", len(events))
	}
	if lag, err := s.Lag(t.Context(), ""); err != nil || lag != 60 {
		t.Errorf("lag from the beginning: %d, %v", lag, err)
	}
	if lag, err := s.Lag(t.Context(), cursor); err != nil || lag != 0 {
		t.Errorf("lag at the end: %d, %v", lag, err)
	}
	mustAppend(t, s, "new", eventstore.New, event(1))
	if more, _ := drain(t, s, cursor, 7); len(more) != 1 || more[0].Stream != "new" {
		t.Errorf("after the cursor: %v", more)
	}
}

func cursors(t *testing.T, s eventstore.Store, _ Features) {
	for _, c := range []string{"x", "-1", "1-x", "1-2-3", "' OR 1=1", "99999999999999999999999", "1 "} {
		if _, _, err := s.Read(t.Context(), c, 10); !errors.Is(err, eventstore.ErrCursor) {
			t.Errorf("Read from %q: %v, want ErrCursor", c, err)
		}
	}
}

func tailBesideWriters(t *testing.T, s eventstore.Store, _ Features) {
	const writers, each = 8, 25
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if _, err := s.Append(ctx, fmt.Sprint("s", (w+i)%4), eventstore.Any, event(i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	var got []eventstore.Recorded
	for d, err := range eventstore.Subscribe(ctx, s, "") {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, d.Recorded); len(got) == writers*each {
			break
		}
	}
	wg.Wait()
	if inOrder(t, got); len(got) != writers*each {
		t.Errorf("%d events, want %d", len(got), writers*each)
	}
}

// lateCommit holds a transaction open that began early, while others append and are read.
func lateCommit(t *testing.T, s eventstore.Store, f Features) {
	if f.InTx == nil {
		t.Skip("the store declares no transactions: nothing can commit late")
	}
	appended, release, done := make(chan struct{}), make(chan struct{}), make(chan error)
	var once sync.Once
	go func() {
		done <- f.InTx(context.WithoutCancel(t.Context()), s, func(ctx context.Context) error {
			if _, err := s.Append(ctx, "early", eventstore.Any, event(1)); err != nil {
				return err
			}
			once.Do(func() { close(appended) })
			<-release
			return nil
		})
	}()
	<-appended
	others := make(chan error, 1)
	go func() {
		_, err := s.Append(t.Context(), "late", eventstore.Any, event(2))
		others <- err
	}()
	time.AfterFunc(300*time.Millisecond, func() { close(release) })
	var got []eventstore.Recorded
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for d, err := range eventstore.Subscribe(ctx, s, "") {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, d.Recorded); len(got) == 2 {
			break
		}
	}
	if err := errors.Join(<-done, <-others); err != nil {
		t.Fatal(err)
	}
	if last := inOrder(t, got); last["early"] != 1 || last["late"] != 1 {
		t.Errorf("read %v: the event that committed late was missed", last)
	}
}

func rollback(t *testing.T, s eventstore.Store, f Features) {
	if f.InTx == nil {
		t.Skip("the store declares no transactions")
	}
	boom := errors.New("boom")
	err := f.InTx(t.Context(), s, func(ctx context.Context) error {
		if _, err := s.Append(ctx, "a", eventstore.New, event(1)); err != nil {
			return err
		}
		return boom
	})
	if !errors.Is(err, boom) {
		t.Fatal(err)
	}
	mustAppend(t, s, "a", eventstore.New, event(2))
	if got := load(t, s, "a", 0); len(got) != 1 || string(got[0].Data) != `{"n":2}` {
		t.Errorf("after a rollback: %v", got)
	}
}

func snapshots(t *testing.T, s eventstore.Store, _ Features) {
	save := func(version int64, schema int, state string) {
		t.Helper()
		if err := s.SaveSnapshot(t.Context(), eventstore.Snapshot{Stream: "a", Version: version, Schema: schema, State: json.RawMessage(state)}); err != nil {
			t.Fatal(err)
		}
	}
	check := func(schema int, want bool, version int64, state string) {
		t.Helper()
		got, ok, err := s.LoadSnapshot(t.Context(), "a", schema)
		if err != nil || ok != want || ok && (got.Version != version || string(got.State) != state || got.Stream != "a" || got.Schema != schema) {
			t.Errorf("schema %d: %+v, %v, %v", schema, got, ok, err)
		}
	}
	check(1, false, 0, "")
	save(5, 1, `{"v":5}`)
	save(3, 1, `{"v":3}`)
	save(7, 2, `{"v":7}`)
	check(1, true, 5, `{"v":5}`)
	check(2, true, 7, `{"v":7}`)
	check(3, false, 0, "")
}

func checkpoints(t *testing.T, s eventstore.Store, _ Features) {
	move := func(from, to string, want error) {
		t.Helper()
		if err := s.MoveCheckpoint(t.Context(), "p", from, to); !errors.Is(err, want) {
			t.Errorf("move from %q to %q: %v, want %v", from, to, err, want)
		}
	}
	move("9", "10", eventstore.ErrCheckpoint)
	move("", "1", nil)
	move("", "1", eventstore.ErrCheckpoint)
	move("1", "2", nil)
	move("1", "3", eventstore.ErrCheckpoint)
	if got, err := s.Checkpoint(t.Context(), "p"); err != nil || got != "2" {
		t.Errorf("checkpoint %q, %v", got, err)
	}
	if got, err := s.Checkpoint(t.Context(), "other"); err != nil || got != "" {
		t.Errorf("checkpoint of another: %q, %v", got, err)
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
	got := load(t, s, "a", 0)
	if inOrder(t, got); len(got) != 1200 {
		t.Errorf("%d events, want 1200", len(got))
	}
}
