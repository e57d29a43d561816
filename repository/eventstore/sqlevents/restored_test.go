package sqlevents_test

import (
	"cmp"
	"errors"
	"fmt"
	"os/exec"
	"reflect"
	"slices"
	"testing"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/repository/eventstore"
	"github.com/sillar-go/sillar/repository/eventstore/sqlevents"
)

// restore brings a database into another one by pg_dump and psql.
func restore(t *testing.T, from, to string) {
	t.Helper()
	if _, err := exec.LookPath("pg_dump"); err != nil {
		testenv.Missing(t, "no pg_dump: apt-get install postgresql-client, of the version of the server or a newer one")
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `pg_dump "$1" > "$3" && psql -q -v ON_ERROR_STOP=1 -f "$3" "$2"`,
		"restore", from, to, t.TempDir()+"/dump.sql")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func ids(events []eventstore.Recorded) (out []string) {
	for _, e := range events {
		out = append(out, e.ID)
	}
	return out
}

// What was restored from a server whose transaction ids are ahead is neither read in part nor appended to: the error
// names the repair. After that the order of reading is what it was, projections go on where they were, and new events
// come last.
func TestRestoredDatabase(t *testing.T) {
	for name, ahead := range map[string]string{
		"all ahead":          "WHERE true",
		"some ahead":         "WHERE position > 3",
		"out of order":       "WHERE position IN (2, 5, 6, 9)",
		"every other":        "WHERE position % 2 = 0",
		"logical replicated": "WHERE position > 7",
	} {
		t.Run(name, func(t *testing.T) {
			source := testenv.Postgres(t)
			want := fillAhead(t, source, ahead)
			target := testenv.Postgres(t)
			restore(t, source, target)
			db, s := open(t, target, sqlevents.Config{Coalesce: -1})
			if name == "logical replicated" {
				if err := db.Exec(t.Context(), "ALTER TABLE sillar_events ALTER COLUMN position RESTART"); err != nil {
					t.Fatal(err)
				}
			}
			checkRestored(t, s, want)
		})
	}
}

// fillAhead fills a database with events. Those that the condition selects have the transaction ids of a server that is
// ahead. It returns the order in which they are read.
func fillAhead(t *testing.T, dsn, condition string) (want []string) {
	t.Helper()
	db, s := open(t, dsn, sqlevents.Config{Coalesce: -1})
	for i := range 12 {
		if _, err := s.Append(t.Context(), fmt.Sprint("s", i%4), eventstore.AnyVersion,
			eventstore.Event{Type: "x"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.MoveCheckpoint(t.Context(), "early", "", "1-1"); err != nil {
		t.Fatal(err)
	}
	if err := db.Exec(t.Context(), `
		UPDATE sillar_events SET xid = (xid::text::bigint + 1000000000000)::text::xid8 `+condition+`;
		UPDATE sillar_streams s SET last_xid = (SELECT xid FROM sillar_events e
		WHERE e.stream = s.stream ORDER BY xid DESC LIMIT 1);
		INSERT INTO sillar_checkpoints SELECT 'p', xid || '-' || position FROM sillar_events ORDER BY xid,
		position LIMIT 1 OFFSET 7;`); err != nil {
		t.Fatal(err)
	}
	rows, err := db.Querier(t.Context()).Query(t.Context(), "SELECT id FROM sillar_events ORDER BY xid, position")
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			t.Fatal(err)
		}
		want = append(want, id)
	}
	if err := rows.Close(); err != nil {
		t.Fatal(err)
	}
	return want
}

// checkRestored compares a restored store with what was saved, before and after its repair.
func checkRestored(t *testing.T, s *sqlevents.Store, want []string) {
	t.Helper()
	x := eventstore.Event{Type: "x"}
	refused := map[string]error{}
	_, refused["append"] = s.Append(t.Context(), "s0", 3, x)
	_, refused["append to any version"] = s.Append(t.Context(), "s1", eventstore.AnyVersion, x)
	_, refused["append to a new stream"] = s.Append(t.Context(), "new", eventstore.NoStream, x)
	_, _, refused["read"] = s.Read(t.Context(), "", 100)
	_, refused["lag"] = s.Lag(t.Context(), "")
	for what, err := range refused {
		if !errors.Is(err, sqlevents.ErrRestored) {
			t.Errorf("%s: %v, want ErrRestored", what, err)
		}
	}
	for range 2 { // the second has nothing to do
		if err := s.RepairRestored(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	got, _, err := s.Read(t.Context(), "", 100)
	if err != nil || !reflect.DeepEqual(ids(got), want) {
		t.Fatalf("read %v, %v, want %v", ids(got), err, want)
	}
	for projection, applied := range map[string]int{"p": 8, "early": 0, "none": 0} {
		place, err := s.Checkpoint(t.Context(), projection)
		if err != nil {
			t.Fatal(err)
		}
		rest, _, err := s.Read(t.Context(), place, 100)
		if err != nil || !reflect.DeepEqual(ids(rest), want[applied:]) {
			t.Errorf("after the checkpoint of %s: %v, %v, want %v", projection, ids(rest), err, want[applied:])
		}
	}
	if _, _, err := s.Read(t.Context(), "1000000000800-12", 100); !errors.Is(err, eventstore.ErrCursor) {
		t.Errorf("a cursor of the other server: %v, want ErrCursor", err)
	}
	last := slices.MaxFunc(got, func(a, b eventstore.Recorded) int {
		return cmp.Compare(a.Position, b.Position)
	}).Position
	for _, stream := range []string{"s0", "new"} {
		r, err := s.Append(t.Context(), stream, eventstore.AnyVersion, x)
		if err != nil || r[0].Position <= last {
			t.Fatalf("append after the repair: %v, %v", r, err)
		}
		want = append(want, r[0].ID)
	}
	for n := 0; n < len(want); {
		got, _, err = s.Read(t.Context(), "", 100)
		if n = len(got); err != nil {
			t.Fatal(err)
		}
	}
	if !reflect.DeepEqual(ids(got), want) {
		t.Errorf("after appends: %v, want %v", ids(got), want)
	}
}
