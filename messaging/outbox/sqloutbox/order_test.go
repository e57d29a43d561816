package sqloutbox_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/messaging"
)

// Leases end while a claim is looking at the rows: what follows an event must not be claimed without it.
func TestLeaseEndsDuringAClaim(t *testing.T) {
	for name, dsn := range testenv.SQL() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const keys = 300
			db, o := open(t, dsn(t))
			ctx := t.Context()
			put := func(which string) {
				t.Helper()
				if err := db.InTx(ctx, func(ctx context.Context) error {
					for k := range keys {
						e := messaging.Envelope{ID: fmt.Sprint(which, "-", k), Type: "a.b", Source: "test", Key: fmt.Sprint("k", k),
							Body: []byte("{}"), Time: time.Now()}
						if err := o.PublishBatch(ctx, []messaging.Envelope{e}); err != nil {
							return err
						}
					}
					return nil
				}); err != nil {
					t.Fatal(err)
				}
			}
			put("first")
			first, err := o.Claim(ctx, "dead", keys, 300*time.Millisecond)
			if err != nil || len(first) != keys {
				t.Fatalf("%d claimed, %v", len(first), err)
			}
			put("second")
			for round := range 10 {
				owner := fmt.Sprint("next", round)
				for end := time.Now().Add(20 * time.Second); ; {
					got, err := o.Claim(ctx, owner, 2*keys, 40*time.Millisecond)
					if err != nil || time.Now().After(end) {
						t.Fatal("in vain: ", err)
					}
					if len(got) == 0 {
						continue
					}
					seen := map[string]int{}
					for _, e := range got {
						if seen[e.Key]++; (seen[e.Key] == 1) != (e.ID[0] == 'f') {
							t.Fatalf("round %d: %s was claimed as number %d of its key, of %d", round, e.ID, seen[e.Key], len(got))
						}
					}
					break
				}
			}
		})
	}
}
