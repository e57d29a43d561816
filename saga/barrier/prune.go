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
	marks, results := b.prefix+"barrier", b.prefix+"barrier_results"
	pruned, err = b.deleteAll(ctx, "DELETE FROM "+marks+" WHERE step IN (SELECT step FROM "+marks+
		" b WHERE created_at < $1"+
		" AND NOT EXISTS (SELECT 1 FROM "+marks+
		" n WHERE n.step = b.step AND n.created_at >= $1) ORDER BY created_at LIMIT $2)", before)
	if err != nil {
		return pruned, err
	}
	_, err = b.deleteAll(ctx, "DELETE FROM "+results+" WHERE step IN (SELECT step FROM "+results+
		" r WHERE created_at < $1"+
		" AND NOT EXISTS (SELECT 1 FROM "+marks+" n WHERE n.step = r.step) ORDER BY created_at LIMIT $2)", before)
	return pruned, err
}

// deleteAll repeats a statement that deletes up to $2 rows until it deletes none.
func (b *Barrier) deleteAll(ctx context.Context, query string, before time.Time) (deleted int64, err error) {
	for {
		n, err := b.db.Querier(ctx).Exec(ctx, query, before.UnixMicro(), pruneAtOnce)
		if err != nil {
			return deleted, fmt.Errorf("barrier: prune: %w", err)
		}
		if deleted += n; n == 0 {
			return deleted, nil
		}
	}
}
