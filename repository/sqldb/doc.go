// Package sqldb opens SQL databases and carries a transaction in the context, so that one commit covers everything
// that took part: repositories, event store, saga rows, outbox rows and the caller's own statements.
//
//	db, err := sqldb.Open(ctx, "postgres://localhost/orders", sqldb.Config{})
//	...
//	err = db.InTx(ctx, func(ctx context.Context) error {
//		if _, err := orders.Create(ctx, order); err != nil { // a sqlrepo.Repo over db: joins
//			return err
//		}
//		return outbox.Publish(ctx, "orders.created", created) // a sqloutbox.Outbox over db: joins
//	})
//
// PostgreSQL is spoken through pgx natively, SQLite through database/sql; the SQLite driver is linked only by programs
// that import the package sqlite below this one.
//
// # Guarantees
//
//   - The transaction travels only in the context, keyed by its *DB: a second database never joins it.
//   - InTx commits when the function returns nil and rolls back when it returns an error, panics, calls
//     runtime.Goexit or its context ends. A nested InTx joins; when a nested function fails, the whole transaction
//     rolls back, even if the outer function swallows the error (ErrDoomed).
//   - Only the outermost InTx retries, and only after a serialization failure, a deadlock or SQLITE_BUSY; so a
//     function may run more than once and must keep its effects inside the database.
//   - A context that outlives its transaction gives ErrTxDone, never a statement outside the transaction.
//   - On SQLite there is one writer and a pool of readers over a write-ahead log: concurrent load does not meet
//     SQLITE_BUSY. A nested transaction with a fresh context would wait for itself, on PostgreSQL where the pool is
//     exhausted: it fails with ErrBusy after Config.BusyTimeout.
//
// # What it does not do
//
// It maps no objects (package sqlrepo does) and builds no SQL.
package sqldb
