package eventstore_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/eventstore"
	"github.com/sillar-go/sillar/repository/eventstore/memevents"
	"github.com/sillar-go/sillar/repository/eventstore/sqlevents"
	"github.com/sillar-go/sillar/repository/sqldb"
)

// An aggregate whose stream was deleted is not found, and Handle does not wait for it to come back.
func TestAggregateOfADeletedStream(t *testing.T) {
	s := memevents.New(memevents.Config{})
	a := accounts(t, s, eventstore.AggregateConfig{SnapshotEvery: 2})
	for range 3 {
		if _, err := a.Handle(t.Context(), "1", deposit(10)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Delete(t.Context(), a.Stream("1"), 3); err != nil {
		t.Fatal(err)
	}
	if _, _, err := a.Load(t.Context(), "1"); !errors.Is(err, eventstore.ErrDeleted) ||
		!errors.Is(err, repository.ErrNotFound) {
		t.Errorf("Load: got %v, want ErrDeleted and ErrNotFound", err)
	}
	if _, err := a.Handle(t.Context(), "1", deposit(10)); !errors.Is(err, eventstore.ErrDeleted) {
		t.Errorf("Handle: got %v, want ErrDeleted", err)
	}
	if _, _, err := a.Load(t.Context(), "2"); errors.Is(err, eventstore.ErrDeleted) || !errors.Is(err, repository.ErrNotFound) {
		t.Errorf("Load of another: got %v, want ErrNotFound alone", err)
	}
}

// A projection of a category passes over long runs of other events in one Step, is told of deletions, and is not held
// up by those that it does not apply.
func TestProjectionOfACategory(t *testing.T) {
	db := sqldb.Must(sqldb.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "p.db"), sqldb.Config{Synchronous: "OFF"}))
	defer db.Close()
	s := sqlevents.Must(sqlevents.New(db, sqlevents.Config{}))
	if err := s.EnsureSchema(t.Context()); err != nil {
		t.Fatal(err)
	}
	add := func(stream string, n int) {
		t.Helper()
		events := make([]eventstore.Event, n)
		for i := range events {
			events[i].Type = "made"
		}
		if _, err := s.Append(t.Context(), stream, eventstore.AnyVersion, events...); err != nil {
			t.Fatal(err)
		}
	}
	add("order-1", 2)
	add("log-1", 12_000)
	add("order-2", 1)
	add("log-1", 10)
	var applied, deleted []string
	apply := func(_ context.Context, r eventstore.Recorded) error {
		applied = append(applied, fmt.Sprint(r.Stream, "@", r.Version))
		return nil
	}
	p, err := eventstore.NewProjector(s, db, apply, eventstore.ProjectorConfig{Name: "orders",
		Filter: eventstore.Filter{Categories: []string{"order"}}, OnDelete: func(_ context.Context, stream string) error {
			deleted = append(deleted, stream)
			return nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []int{2, 1, 0, 0} {
		if n, err := p.Step(t.Context()); n != want || err != nil {
			t.Fatalf("step %d: got %d, %v, want %d", i, n, err, want)
		}
	}
	if want := []string{"order-1@1", "order-1@2", "order-2@1"}; !slices.Equal(applied, want) {
		t.Errorf("applied %v, want %v", applied, want)
	}
	if lag, err := p.Lag(t.Context()); lag != 0 || err != nil {
		t.Errorf("lag: got %d, %v, want 0: the checkpoint is behind what was passed over", lag, err)
	}
	if err := s.Delete(t.Context(), "order-1", 2); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), "log-1", eventstore.AnyVersion); err != nil {
		t.Fatal(err)
	}
	if n, err := p.Step(t.Context()); n != 1 || err != nil || !slices.Equal(deleted, []string{"order-1"}) {
		t.Errorf("after a deletion: got %d, %v, told of %v, want order-1", n, err, deleted)
	}
	anew, err := eventstore.NewProjector(s, db, apply, eventstore.ProjectorConfig{Name: "anew"})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := anew.Step(t.Context()); n != 3 || err != nil || len(applied) != 4 {
		t.Errorf("a rebuild: got %d, %v, applied %v, want one event and two deletions", n, err, applied)
	}
}

// An archive is a copy of a stream, and its deletion at the version that was copied.
func ExampleStore_archive() {
	ctx := context.Background()
	store := memevents.New(memevents.Config{})
	_, _ = store.Append(ctx, "order-1", eventstore.NoStream, eventstore.Event{Type: "made"}, eventstore.Event{Type: "paid"})

	var archive []eventstore.Recorded // a file, or a bucket
	for event, err := range eventstore.Load(ctx, store, "order-1") {
		if err != nil {
			fmt.Println(err)
			return
		}
		archive = append(archive, event)
	}
	last := archive[len(archive)-1].Version
	fmt.Println(len(archive), store.Delete(ctx, "order-1", last)) // a conflict where others have appended meanwhile

	_, err := store.Append(ctx, "order-1", last, eventstore.Event{Type: "paid"})
	fmt.Println(err)
	// Output:
	// 2 <nil>
	// eventstore: the stream was deleted: order-1
}
