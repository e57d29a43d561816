package sagamongo_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/sagamongo"
)

// The clock of the node, which stands in the year 2000 here, and that of the server may differ: what is due now is
// claimed now, and what sleeps for an hour is not.
func TestClocksOfNodeAndServerMayDiffer(t *testing.T) {
	dsn := testenv.Mongo(t)
	synctest.Test(t, func(t *testing.T) {
		s, ctx := sagamongo.Must(sagamongo.New(t.Context(), testenv.MongoDatabase(t, dsn), sagamongo.Config{})), t.Context()
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
