// Package sqlite links the SQLite driver (modernc.org/sqlite, pure Go) for sqldb.Open. Import it for its effect:
//
//	import _ "github.com/sillar-go/sillar/repository/sqldb/sqlite"
//
// It is a package of its own so that a program on PostgreSQL does not carry SQLite.
package sqlite

import _ "modernc.org/sqlite" // registers the driver "sqlite" with database/sql
