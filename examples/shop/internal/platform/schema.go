package platform

import (
	"context"
	"fmt"

	"github.com/sillar-go/sillar/repository/sqldb"
)

// Tables runs fn, which makes tables, in a transaction that no other process is in at the same time: on PostgreSQL
// CREATE TABLE IF NOT EXISTS fails when it races with itself, as it does when replicas start together.
func Tables(ctx context.Context, db *sqldb.DB, fn func(ctx context.Context) error) error {
	return db.InTx(ctx, func(ctx context.Context) error {
		if db.Dialect() == sqldb.PostgreSQL {
			if _, err := db.Querier(ctx).Exec(ctx, "SELECT pg_advisory_xact_lock(7310582)"); err != nil {
				return fmt.Errorf("lock for the tables: %w", err)
			}
		}
		return fn(ctx)
	})
}
