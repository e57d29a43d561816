package barrier

import (
	"context"
	"fmt"
	"time"
)

// pruneAtOnce is how many steps Prune forgets in a statement: few enough not to hold others up.
const pruneAtOnce = 500

// Prune forgets the steps whose last mark was set before a time, and returns how many marks that were; nothing else
// removes them. It can be stopped and called again, and takes part in no transaction that ctx may carry. A step that is
// forgotten is new when it comes once more: keep marks longer than any saga may run, be repeated, or wait for an
// operator.
func (b *Barrier) Prune(ctx context.Context, before time.Time) (pruned int64, err error) {
	ctx = b.db.WithoutTx(ctx)
	table := b.prefix + "barrier"
	for {
		n, err := b.db.Querier(ctx).
			Exec(ctx, "DELETE FROM "+table+" WHERE step IN (SELECT step FROM "+table+" b WHERE created_at < $1 AND NOT EXISTS ("+
				"SELECT 1 FROM "+table+" n WHERE n.step = b.step AND n.created_at >= $1) LIMIT $2)", before.UnixMicro(), pruneAtOnce)
		if err != nil {
			return pruned, fmt.Errorf("barrier: prune: %w", err)
		}
		if pruned += n; n == 0 {
			return pruned, nil
		}
	}
}
