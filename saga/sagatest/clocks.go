package sagatest

import (
	"testing"
	"time"

	"github.com/sillar-go/sillar/saga"
)

// Clocks checks that the clock of the node and that of the store's server may differ: what is due now is claimed now,
// and what sleeps for an hour is not. Call it on an empty store inside testing/synctest, where the node's clock stands
// in the year 2000.
func Clocks(t *testing.T, s saga.Store) {
	t.Helper()
	ctx := t.Context()
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
}
