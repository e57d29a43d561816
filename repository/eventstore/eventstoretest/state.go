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
		if err := s.SaveSnapshot(t.Context(), eventstore.Snapshot{Stream: "a", Version: version, Schema: schema,
			State: json.RawMessage(state)}); err != nil {
			t.Fatal(err)
		}
	}
	check := func(schema int, want bool, version int64, state string) {
		t.Helper()
		got, ok, err := s.LoadSnapshot(t.Context(), "a", schema)
		if err != nil || ok != want || ok && (got.Version != version || string(got.State) != state || got.Stream != "a" ||
			got.Schema != schema) {
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

func redact(t *testing.T, s eventstore.Store, _ Features) {
	appendNames(t, s)
	count := func(stream string) (said, all int) {
		t.Helper()
		for r, err := range eventstore.Load(t.Context(), s, stream) {
			if err != nil {
				t.Fatal(err)
			}
			if all++; string(r.Data) != "null" || r.Metadata["ip"] != "" {
				said++
			}
			if r.Type != "named" || r.Version != int64(all) || r.ID == "" {
				t.Errorf("%s: %+v", stream, r)
			}
		}
		if _, ok, err := s.LoadSnapshot(t.Context(), stream, 1); err != nil || ok != (said > 0) {
			t.Errorf("%s has a snapshot: %v, %v", stream, ok, err)
		}
		return said, all
	}
	for stream, want := range map[string]int{"person-1": 0, "(person": 0, "person-12": 3} {
		if said, all := count(stream); said != want || all != 3 {
			t.Errorf("%s: %d of %d events say something, want %d of 3", stream, said, all, want)
		}
	}
	if _, err := s.Append(t.Context(), "person-1", 3, event(1)); err != nil {
		t.Errorf("an append behind redacted events: %v", err)
	}
	if events, _ := drain(t, s, "", 100, 10); len(events) != 10 {
		t.Errorf("a reader sees %d events, want 10", len(events))
	}
}

// appendNames appends events with personal data to several streams.
func appendNames(t *testing.T, s eventstore.Store) {
	t.Helper()
	for _, stream := range []string{"person-1", "person-12", "(person"} {
		for i := range 3 {
			e := eventstore.Event{Type: "named", Data: json.RawMessage(`{"name":"Ana"}`),
				Metadata: map[string]string{"ip": "192.0.2.1"}}
			if _, err := s.Append(t.Context(), stream, int64(i), e); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.SaveSnapshot(t.Context(), eventstore.Snapshot{Stream: stream, Version: 3, Schema: 1,
			State: json.RawMessage(`{"name":"Ana"}`)}); err != nil {
			t.Fatal(err)
		}
	}
	for _, stream := range []string{"person-1", "(person", "none"} {
		if err := s.Redact(t.Context(), stream); err != nil {
			t.Fatal(err)
		}
	}
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
