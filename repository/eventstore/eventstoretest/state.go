package eventstoretest

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/sillar-go/sillar/repository/eventstore"
)

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
	move("", "", nil)
	move("", "", nil)
	move("", "1", nil)
	move("", "", eventstore.ErrCheckpoint)
	move("", "1", eventstore.ErrCheckpoint)
	move("1", "1", nil)
	move("1", "2", nil)
	move("1", "3", eventstore.ErrCheckpoint)
	if got, err := s.Checkpoint(t.Context(), "p"); err != nil || got != "2" {
		t.Errorf("checkpoint %q, %v", got, err)
	}
	if got, err := s.Checkpoint(t.Context(), "other"); err != nil || got != "" {
		t.Errorf("checkpoint of another: %q, %v", got, err)
	}
}
