package barrier_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/sillar-go/sillar/repository/sqldb"
	"github.com/sillar-go/sillar/saga/barrier"
)

// Prune removes old marks, but no mark of a step that has a newer one: else its action would run again.
func TestPruneKeepsMarksOfUnfinishedSagas(t *testing.T) {
	each(t, func(t *testing.T, db *sqldb.DB, b *barrier.Barrier) {
		do := func(key string) (ran bool, err error) {
			err = db.InTx(t.Context(), func(ctx context.Context) error {
				return b.Do(ctx, key, func(context.Context) error { ran = true; return nil })
			})
			return ran, err
		}
		must := func(key string, want bool) {
			t.Helper()
			if ran, err := do(key); ran != want || err != nil {
				t.Fatalf("%s ran: %v, %v", key, ran, err)
			}
		}
		for i := range 700 {
			must(fmt.Sprint("old", i, "/pay/do"), true)
		}
		must("old0/pay/undo", true)
		must("both/pay/do", true)
		must("shut/pay/undo", false)
		time.Sleep(2 * time.Millisecond)
		before := time.Now()
		must("both/pay/undo", true)
		must("shut2/pay/undo", false)
		must("new/pay/do", true)
		if n, err := b.Prune(t.Context(), before); n != 703 || err != nil {
			t.Fatalf("%d marks are forgotten, %v; want 703", n, err)
		}
		must("new/pay/do", false)
		must("both/pay/do", false)
		if _, err := do("shut2/pay/do"); !errors.Is(err, barrier.ErrTooLate) {
			t.Errorf("a late action of a recent compensation: %v", err)
		}
		must("old1/pay/do", true) // which is what keeping marks is for
		if n, err := b.Prune(t.Context(), before); n != 0 || err != nil {
			t.Errorf("then %d more, %v", n, err)
		}
	})
}
