package eventstoretest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/sillar-go/sillar/repository/eventstore"
)

const (
	patience = 30 * time.Second // bounds what a check does
	quiet    = 10 * time.Second // after which nothing comes any more
)

// drain reads n events after a cursor, and looks once more. A store may hold back what has just been appended.
func drain(t *testing.T, s eventstore.Store, cursor string, limit, n int) (out []eventstore.Recorded, next string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), quiet)
	defer cancel()
	for done := false; !done; {
		done = len(out) >= n || ctx.Err() != nil
		events, next, err := s.Read(t.Context(), cursor, limit)
		if err != nil {
			t.Fatal(err)
		}
		if len(events) > limit {
			t.Fatalf("%d events at a limit of %d", len(events), limit)
		}
		if len(events) == 0 && !done {
			s.Wait(ctx)
		}
		out, cursor = append(out, events...), next
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
		mustAppend(t, s, fmt.Sprint("s", i%3), eventstore.AnyVersion, event(i), event(i))
	}
	events, cursor := drain(t, s, "", 7, 60)
	if inOrder(t, events); len(events) != 60 {
		t.Errorf("%d events, want 60", len(events))
	}
	if lag, err := s.Lag(t.Context(), ""); err != nil || lag != 60 {
		t.Errorf("lag from the beginning: %d, %v", lag, err)
	}
	if lag, err := s.Lag(t.Context(), cursor); err != nil || lag != 0 {
		t.Errorf("lag at the end: %d, %v", lag, err)
	}
	mustAppend(t, s, "new", eventstore.NoStream, event(1))
	if more, _ := drain(t, s, cursor, 7, 1); len(more) != 1 || more[0].Stream != "new" {
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

// tailBesideWriters follows the store beside 16 writers, while a transaction is open that began before them.
func tailBesideWriters(t *testing.T, s eventstore.Store, f Features) {
	const writers, each = 16, 12
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var wg sync.WaitGroup
	total := writers * each
	if f.InTx != nil {
		total++
		held := make(chan struct{})
		var once sync.Once
		wg.Go(func() {
			err := f.InTx(ctx, s, func(ctx context.Context) error {
				if _, err := s.Append(ctx, "early", eventstore.AnyVersion, event(0)); err != nil {
					return err
				}
				once.Do(func() { close(held) })
				time.Sleep(200 * time.Millisecond)
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
		select {
		case <-held:
		case <-ctx.Done():
			t.Fatal("the transaction does not begin")
		}
	}
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if _, err := s.Append(ctx, fmt.Sprint("s", (w+i)%4), eventstore.AnyVersion, event(i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	written := make(chan struct{})
	go func() { defer close(written); wg.Wait() }()
	got := follow(ctx, t, s, total, written)
	<-written
	if inOrder(t, got); len(got) != total {
		t.Errorf("%d events, want %d", len(got), total)
	}
	if more, _ := drain(t, s, "", 500, total); len(more) != total {
		t.Errorf("%d events from the beginning, want %d", len(more), total)
	}
}

// follow subscribes until n events have come, or nothing that was missed can come any more.
func follow(ctx context.Context, t *testing.T, s eventstore.Store, n int,
	written <-chan struct{}) (got []eventstore.Recorded) {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-written:
		case <-ctx.Done():
		}
		select {
		case <-time.After(quiet):
			cancel()
		case <-ctx.Done():
		}
	}()
	for d, err := range eventstore.Subscribe(ctx, s, "") {
		if err != nil {
			t.Error(err)
			break
		}
		if got = append(got, d.Recorded); len(got) == n {
			break
		}
	}
	return got
}

// lateCommit holds a transaction open that began early, while others append and are read.
func lateCommit(t *testing.T, s eventstore.Store, f Features) {
	if f.InTx == nil {
		t.Skip("the store declares no transactions: nothing can commit late")
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	appended, written := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var wg sync.WaitGroup
	wg.Go(func() {
		err := f.InTx(ctx, s, func(ctx context.Context) error {
			if _, err := s.Append(ctx, "early", eventstore.AnyVersion, event(1)); err != nil {
				return err
			}
			once.Do(func() { close(appended) })
			time.Sleep(300 * time.Millisecond)
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	select {
	case <-appended:
	case <-ctx.Done():
		t.Fatal("the transaction does not begin")
	}
	wg.Go(func() {
		if _, err := s.Append(ctx, "late", eventstore.AnyVersion, event(2)); err != nil {
			t.Error(err)
		}
	})
	go func() { defer close(written); wg.Wait() }()
	var got []eventstore.Recorded
	for cursor, open := "", true; open; { // looks all the time: what is shown too early must be seen
		select {
		case <-written:
			open = false
		case <-time.After(time.Millisecond):
		}
		events, next, err := s.Read(t.Context(), cursor, 10)
		if err != nil {
			t.Fatal(err)
		}
		got, cursor = append(got, events...), next
		if !open {
			more, _ := drain(t, s, cursor, 10, 2-len(got))
			got = append(got, more...)
		}
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
		if _, err := s.Append(ctx, "a", eventstore.NoStream, event(1)); err != nil {
			return err
		}
		return boom
	})
	if !errors.Is(err, boom) {
		t.Fatal(err)
	}
	mustAppend(t, s, "a", eventstore.NoStream, event(2))
	if got := load(t, s, "a", 0); len(got) != 1 || string(got[0].Data) != `{"n":2}` {
		t.Errorf("after a rollback: %v", got)
	}
}
