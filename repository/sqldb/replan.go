package sqldb

import (
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

type replan struct{}

// Replan as the first argument of a statement makes PostgreSQL plan it each time it runs, which takes some tenths of a
// millisecond. It is for statements that look up a list, or what is due: the best plan while a table is small reads all
// of it, and a statement that is kept prepared keeps its plan, however the table grows, until that is analysed. It is
// no parameter, and where statements are not kept (other databases, a pool of the caller's with another exec mode) it
// does nothing.
var Replan replan

// keeps reports whether a pool keeps statements, and can be configured not to.
func keeps(pool *pgxpool.Pool) bool {
	cfg := pool.Config().ConnConfig
	return cfg.DefaultQueryExecMode == pgx.QueryExecModeCacheStatement && cfg.DescriptionCacheCapacity > 0
}

// parameters takes Replan off.
func parameters(args []any) (rest []any, again bool) {
	if len(args) > 0 {
		if _, again = args[0].(replan); again {
			args = args[1:]
		}
	}
	return args, again
}

// arguments are those that pgx takes: with them it describes the statement once and plans it at each call.
func (q pgxQuerier) arguments(args []any) []any {
	rest, again := parameters(args)
	if !again || !q.db.keeps {
		return rest
	}
	return append([]any{pgx.QueryExecModeCacheDescribe}, rest...)
}
