package sagasql_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/repository/sqldb"
	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/sagasql"
)

// The clock of the node, which stands in the year 2000 here, and that of the database may differ: what is due now is
// claimed now, and what sleeps for an hour is not.
func TestClocksOfNodeAndDatabaseMayDiffer(t *testing.T) {
	dsn := testenv.Postgres(t)
	synctest.Test(t, func(t *testing.T) {
		db := sqldb.Must(sqldb.Open(t.Context(), dsn, sqldb.Config{}))
		defer db.Close()
		s, ctx := sagasql.Must(sagasql.New(db, sagasql.Config{})), t.Context()
		if err := s.EnsureSchema(ctx); err != nil {
			t.Fatal(err)
		}
		for id, wake := range map[string]time.Duration{"now": 0, "later": time.Hour} {
			if _, _, err := s.Insert(ctx, saga.Record{ID: id, Name: "x", Version: 1, Status: saga.Running, State: []byte("1"),
				WakeAt: time.Now().Add(wake)}); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 { // inserted, then saved
			claimed, err := s.Claim(ctx, "n", []saga.Kind{{Name: "x", Version: 1}}, 10)
			if err != nil || len(claimed) != 1 || claimed[0].ID != "now" {
				t.Fatalf("claimed %v, %v, want the saga that is due", claimed, err)
			}
			r := claimed[0].Record
			r.Owner, r.WakeAt = "", time.Now()
			if err := s.Save(ctx, r); err != nil {
				t.Fatal(err)
			}
		}
	})
}
