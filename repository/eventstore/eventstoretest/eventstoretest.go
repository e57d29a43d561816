// Package eventstoretest checks that an adapter keeps the promises of eventstore.Store. An adapter's test calls Run
// with a function that makes an empty store.
package eventstoretest

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/sillar-go/sillar/repository/eventstore"
)

// Features says what an adapter does beyond the port.
type Features struct {
	// InTx runs a function in a transaction of the store's, which ctx carries. Nil: there are none.
	InTx func(ctx context.Context, s eventstore.Store, fn func(ctx context.Context) error) error
}

type check struct {
	name string
	run  func(*testing.T, eventstore.Store, Features)
}

// all are the checks, in the order in which they run.
func all() []check {
	return []check{
		{"AppendAndLoad", appendAndLoad},
		{"ExpectedVersion", expectedVersion},
		{"Refuses", refuses},
		{"OneWinner", oneWinner},
		{"AnyVersion", anyVersion},
		{"UniqueIDs", uniqueIDs},
		{"RepeatedAppend", repeatedAppend},
		{"EndedContext", endedContext},
		{"ReadAll", readAll},
		{"Cursors", cursors},
		{"TailBesideWriters", tailBesideWriters},
		{"LateCommit", lateCommit},
		{"Rollback", rollback},
		{"Snapshots", snapshots},
		{"Redact", redact},
		{"Filtered", filtered},
		{"Delete", deleteStream},
		{"Checkpoints", checkpoints},
		{"LongStream", longStream},
	}
}

// Run runs all checks, each on a store of its own.
func Run(t *testing.T, factory func(t testing.TB) eventstore.Store, f Features) {
	t.Helper()
	for _, c := range all() {
		t.Run(c.name, func(t *testing.T) { c.run(t, factory(t), f) })
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

func mustAppend(t *testing.T, s eventstore.Store, stream string, expected int64,
	events ...eventstore.Event) []eventstore.Recorded {
	t.Helper()
	r, err := s.Append(t.Context(), stream, expected, events...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
