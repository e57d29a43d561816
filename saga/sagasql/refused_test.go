package sagasql_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/repository/sqldb"
	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/sagasql"
)

// What PostgreSQL refuses fails alone, not with the writes that share its commit.
func TestRefusedInsertFailsAlone(t *testing.T) {
	db := sqldb.Must(sqldb.Open(t.Context(), testenv.Postgres(t), sqldb.Config{}))
	t.Cleanup(func() { _ = db.Close() })
	s := sagasql.Must(sagasql.New(db, sagasql.Config{}))
	if err := s.EnsureSchema(t.Context()); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 100 {
		id := fmt.Sprint(i)
		if i == 50 {
			id = "bad\xff"
		}
		wg.Go(func() {
			_, inserted, err := s.Insert(t.Context(), saga.Record{ID: id, Name: "x", Version: 1, Status: saga.Running,
				State: []byte("1"), WakeAt: time.Now()})
			if id == "bad\xff" {
				if !errors.Is(err, saga.ErrUnstorable) {
					t.Errorf("Insert of an id that is not UTF-8: %v, want ErrUnstorable", err)
				}
			} else if err != nil || !inserted {
				t.Errorf("Insert %s: %v", id, err)
			}
		})
	}
	wg.Wait()
}

// A row that does not decode stops neither claims nor lists, and keeps what is stored.
func TestUndecodableSagaIsSetAside(t *testing.T) {
	pool := testenv.Postgres(t)
	db := sqldb.Must(sqldb.Open(t.Context(), pool, sqldb.Config{}))
	t.Cleanup(func() { _ = db.Close() })
	s, ctx := sagasql.Must(sagasql.New(db, sagasql.Config{})), t.Context()
	if err := s.EnsureSchema(ctx); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"a", "b"} {
		if _, _, err := s.Insert(ctx, saga.Record{ID: id, Name: "x", Version: 1, Status: saga.Running, State: []byte("1"),
			WakeAt: time.Now()}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := db.Querier(ctx).Exec(ctx, "UPDATE sillar_sagas SET steps = 'broken' WHERE id = 'a'"); err != nil {
		t.Fatal(err)
	}
	claimed, err := s.Claim(ctx, "n", []saga.Kind{{Name: "x", Version: 1}}, 10)
	if err != nil || len(claimed) != 1 || claimed[0].ID != "b" {
		t.Errorf("claimed %v, %v, want b", claimed, err)
	}
	list, err := s.List(ctx, saga.Filter{Statuses: []saga.Status{saga.Stuck}})
	if err != nil || len(list) != 1 || list[0].ID != "a" || list[0].Cause == "" {
		t.Errorf("listed %v, %v, want a and the cause", list, err)
	}
	var steps string
	if err := db.Querier(ctx).QueryRow(ctx, "SELECT steps FROM sillar_sagas WHERE id = 'a'").Scan(&steps); err != nil ||
		steps != "broken" {
		t.Errorf("steps are %q, %v, want what was stored", steps, err)
	}
}
