package sagasql

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/repository/sqldb"
	"github.com/sillar-go/sillar/saga"
)

// On PostgreSQL the writes of steps are heap-only updates: they leave the indexes alone.
func TestStepsLeaveIndexesAlone(t *testing.T) {
	db := sqldb.Must(sqldb.Open(t.Context(), testenv.Postgres(t), sqldb.Config{}))
	t.Cleanup(func() { _ = db.Close() })
	s, ctx := Must(New(db, Config{})), t.Context()
	if err := s.EnsureSchema(ctx); err != nil {
		t.Fatal(err)
	}
	const sagas, steps = 64, 4
	list := make([]saga.Record, sagas)
	for i := range list {
		list[i] = saga.Record{ID: fmt.Sprint(i), Name: "x", Version: 1, Shape: "s", Status: saga.Running, Owner: "me",
			State: []byte(`"` + strings.Repeat("x", 400) + `"`), Revision: 1, WakeAt: time.Now()}
	}
	err := errors.Join(s.insertAll(ctx, writes(t, list, insertion))...)
	for range steps {
		awaitNoSnapshot(t, db)
		err = errors.Join(append(s.saveAll(ctx, writes(t, list, saving)), err)...)
		for i := range list {
			list[i].Revision++
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	var updates, heapOnly int
	for end := time.Now().Add(30 * time.Second); updates < sagas*steps; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the server has counted %d of %d updates within 30 s", updates, sagas*steps)
		}
		if err := db.Querier(ctx).QueryRow(ctx, `SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables
			WHERE relname = 'sillar_sagas'`).Scan(&updates, &heapOnly); err != nil {
			t.Fatal(err)
		}
	}
	if heapOnly < updates*9/10 {
		t.Errorf("%d of %d updates were heap-only", heapOnly, updates)
	}
}

// awaitNoSnapshot waits until no transaction at the server, in another database either, is older than what is old by
// now: PostgreSQL does not free the space of rows until then.
func awaitNoSnapshot(t *testing.T, db *sqldb.DB) {
	t.Helper()
	q, now := db.Querier(t.Context()), ""
	if err := q.QueryRow(t.Context(), "SELECT pg_current_xact_id()::xid::text").Scan(&now); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		var others int
		if err := q.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid()
			AND greatest(age(backend_xmin), age(backend_xid)) > age($1::text::xid)`, now).Scan(&others); err != nil {
			t.Fatal(err)
		}
		if others == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d others have read old rows for a minute", others)
		}
	}
}
