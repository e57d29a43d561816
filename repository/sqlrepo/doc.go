// Package sqlrepo stores entities in a SQL table, on PostgreSQL and SQLite, as a repository.Repository.
//
//	db, err := sqldb.Open(ctx, "postgres://localhost/shop", sqldb.Config{})
//	products, err := sqlrepo.New[Product](db, sqlrepo.Config{Table: "products"})
//	lamp, err := products.Create(ctx, Product{Name: "Lamp", Price: 1990})
//
// Every method joins the transaction that its context carries (sqldb.DB.InTx). Update and the functions given to
// Create and Delete run inside a transaction of their own where there is none: what they publish through a
// sqloutbox.Outbox on the same database is committed with the row or not at all.
//
// The table is the program's: Schema prints a suggestion, which a program puts among its migrations, and Index the
// indexes that pages want. Text compares by
// its bytes on both databases, so text columns want COLLATE "C" on PostgreSQL for their indexes to be used. Times are
// timestamptz on PostgreSQL and integer microseconds since 1970 on SQLite. Slices are JSON, or arrays such as text[]
// where the table of another program has them.
package sqlrepo
