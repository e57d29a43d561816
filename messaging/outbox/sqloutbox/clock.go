package sqloutbox

import (
	"context"
	"database/sql"
	"slices"
	"strings"
	"time"

	"github.com/sillar-go/sillar/repository/sqldb"
)

func (o *Outbox) querier(ctx context.Context) sqldb.Querier {
	if o.db.Dialect() == sqldb.SQLite {
		return clocked{o.db.Querier(ctx)}
	}
	return o.db.Querier(ctx)
}

// clocked binds @now to this machine's clock, which all processes on a SQLite file share: in tests that is the clock of
// testing/synctest. As a parameter it leaves the statement as it is, so that it is kept prepared.
type clocked struct{ sqldb.Querier }

func (c clocked) Exec(ctx context.Context, query string, args ...any) (int64, error) {
	return c.Querier.Exec(ctx, query, withNow(query, args)...)
}

func (c clocked) Query(ctx context.Context, query string, args ...any) (sqldb.Rows, error) {
	return c.Querier.Query(ctx, query, withNow(query, args)...)
}

func (c clocked) QueryRow(ctx context.Context, query string, args ...any) sqldb.Row {
	return c.Querier.QueryRow(ctx, query, withNow(query, args)...)
}

func withNow(query string, args []any) []any {
	if !strings.Contains(query, "@now") {
		return args
	}
	return append(slices.Clip(args), sql.Named("now", time.Now().UnixMicro()))
}
