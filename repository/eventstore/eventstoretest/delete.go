package eventstoretest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/eventstore"
)

// drainFiltered reads what a filter selects until n events have come, and to the end.
func drainFiltered(t *testing.T, s eventstore.Store, f eventstore.Filter, cursor string, limit, n int) (
	out []eventstore.Recorded, next string,
) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), quiet)
	defer cancel()
	for {
		events, next, err := s.ReadFiltered(t.Context(), f, cursor, limit)
		if err != nil {
			t.Fatal(err)
		}
		if len(events) > limit {
			t.Fatalf("%d events at a limit of %d", len(events), limit)
		}
		out = append(out, events...)
		if next == cursor {
			if len(out) >= n || ctx.Err() != nil {
				return out, cursor
			}
			s.Wait(ctx)
		}
		cursor = next
	}
}

var filters = map[string]struct {
	f    eventstore.Filter
	want int
}{
	"a category":              {eventstore.Filter{Categories: []string{"order"}}, 20},
	"two":                     {eventstore.Filter{Categories: []string{"order", "user"}}, 40},
	"a type":                  {eventstore.Filter{Types: []string{"made"}}, 14},
	"a type with a quote":     {eventstore.Filter{Types: []string{"it's paid", "none"}}, 13},
	"both":                    {eventstore.Filter{Categories: []string{"order"}, Types: []string{"seen"}}, 10},
	"none":                    {eventstore.Filter{Categories: []string{"none"}}, 0},
	"a pattern":               {eventstore.Filter{Categories: []string{"%", "orde_", "\x00", "\xff"}}, 0},
	"a type that is none":     {eventstore.Filter{Types: []string{"\x00", "\xff"}}, 0},
	"the whole of it, by all": {eventstore.Filter{}, 80},
}

// filtered reads by category and by type: all that is selected, in order, whatever lies between.
func filtered(t *testing.T, s eventstore.Store, _ Features) {
	for i := range 40 {
		of := []string{"order-", "orders-", "user-", "Order-"}[i%4]
		mustAppend(t, s, fmt.Sprint(of, i%8), eventstore.AnyVersion,
			eventstore.Event{Type: []string{"made", "paid", "it's paid"}[i%3]}, eventstore.Event{Type: "seen"})
	}
	all, end := drain(t, s, "", 500, 80)
	for name, c := range filters {
		var want []string
		for _, e := range all {
			if c.f.Selects(e.Stream, e.Type) {
				want = append(want, e.ID)
			}
		}
		if len(want) != c.want {
			t.Fatalf("%s: the filter selects %d, want %d", name, len(want), c.want)
		}
		for _, limit := range []int{1, 3, 500} {
			var got []string
			events, next := drainFiltered(t, s, c.f, "", limit, c.want)
			for _, e := range events {
				got = append(got, e.ID)
			}
			if !slices.Equal(got, want) {
				t.Fatalf("%s, limit %d: got %d events %v, want %d in this order: %v", name, limit, len(got), got, len(want), want)
			}
			if more, _ := drain(t, s, next, 10, 0); len(more) != 0 || next != end {
				t.Fatalf("%s, limit %d: the cursor at the end is %q, with %d behind it, want %q", name, limit, next, len(more), end)
			}
		}
	}
}

// deleteStream deletes a stream: its events and snapshots are away for every reader, what is left says so, and other
// streams stay.
func deleteStream(t *testing.T, s eventstore.Store, f Features) {
	for _, stream := range []string{"person-1", "person-12", "person-2"} {
		for i := range 3 {
			mustAppend(t, s, stream, int64(i), eventstore.Event{ID: fmt.Sprint(stream, "/", i), Type: "named",
				Data: json.RawMessage(`{"name":"Ana"}`), Metadata: map[string]string{"ip": "192.0.2.1"}})
		}
		if err := s.SaveSnapshot(t.Context(), eventstore.Snapshot{Stream: stream, Version: 3, Schema: 1,
			State: json.RawMessage(`{"name":"Ana"}`)}); err != nil {
			t.Fatal(err)
		}
	}
	before, read := drain(t, s, "", 5, 9)
	if len(before) != 9 {
		t.Fatalf("%d events, want 9", len(before))
	}
	var conflict *repository.ConflictError
	if err := s.Delete(t.Context(), "person-1", 2); !errors.As(err, &conflict) || conflict.Actual != 3 {
		t.Fatalf("Delete at another version: got %v, want a conflict with version 3", err)
	}
	if got := load(t, s, "person-1", 0); len(got) != 3 {
		t.Errorf("after a conflict the stream has %d events, want 3", len(got))
	}
	if f.InTx != nil {
		boom := errors.New("boom")
		err := f.InTx(t.Context(), s, func(ctx context.Context) error {
			return errors.Join(s.Delete(ctx, "person-1", 3), boom)
		})
		if got := load(t, s, "person-1", 0); !errors.Is(err, boom) || len(got) != 3 {
			t.Fatalf("after a rollback the stream has %d events, want 3; %v", len(got), err)
		}
	}
	deleteTwo(t, s)
	if got := load(t, s, "person-12", 0); len(got) != 3 || string(got[0].Data) != `{"name":"Ana"}` {
		t.Errorf("another stream: got %+v", got)
	}
	// Who has read all so far, and who begins.
	mustAppend(t, s, "person-12", 3, event(4))
	if got, _ := drain(t, s, read, 2, 3); len(got) != 3 || got[2].Stream != "person-12" {
		t.Errorf("a reader goes on with %v, want both deletions and the new event", got)
	}
	for _, limit := range []int{1, 2, 100} {
		got, end := drain(t, s, "", limit, 6)
		if len(got) != 6 || slices.ContainsFunc(got, func(r eventstore.Recorded) bool {
			return r.Stream != "person-12" && r.Type != eventstore.Deleted
		}) {
			t.Errorf("a reader from the beginning, limit %d: got %v, want 6 events", limit, got)
		}
		if lag, err := s.Lag(t.Context(), end); err != nil || lag != 0 {
			t.Errorf("lag at the end: %d, %v", lag, err)
		}
	}
	if got, _ := drainFiltered(t, s, eventstore.Filter{Categories: []string{"person"}, Types: []string{"counted"}}, "", 10,
		3); len(got) != 3 {
		t.Errorf("a reader of another type: got %v, want both deletions and the new event", got)
	}
	if _, err := s.Append(t.Context(), "x", eventstore.AnyVersion,
		eventstore.Event{Type: eventstore.Deleted}); !errors.Is(err, eventstore.ErrAppend) {
		t.Errorf("an event that pretends: got %v, want ErrAppend", err)
	}
}

// deleteTwo deletes streams, each twice, and looks at what is left.
func deleteTwo(t *testing.T, s eventstore.Store) {
	t.Helper()
	for stream, expected := range map[string]int64{"person-1": 3, "person-2": eventstore.AnyVersion,
		"none": eventstore.AnyVersion, "no\x00ne": eventstore.AnyVersion} {
		for range 2 { // once more changes nothing
			if err := s.Delete(t.Context(), stream, expected); err != nil {
				t.Fatalf("Delete of %s: %v", stream, err)
			}
		}
	}
	for _, stream := range []string{"person-1", "person-2"} {
		got := load(t, s, stream, 0)
		if len(got) != 1 || got[0].Type != eventstore.Deleted || got[0].Version != 4 || string(got[0].Data) != "null" {
			t.Fatalf("what is left of %s: got %+v, want an event of the type Deleted at version 4", stream, got)
		}
		if _, ok, err := s.LoadSnapshot(t.Context(), stream, 1); ok || err != nil {
			t.Errorf("the snapshot of %s: got %v, %v", stream, ok, err)
		}
		for _, expected := range []int64{eventstore.NoStream, 3, 4, 5, eventstore.AnyVersion} {
			if _, err := s.Append(t.Context(), stream, expected, event(1)); !errors.Is(err, eventstore.ErrDeleted) {
				t.Errorf("Append to %s, expecting %d: got %v, want ErrDeleted", stream, expected, err)
			}
		}
	}
}
