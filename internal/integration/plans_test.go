package integration

import (
	"cmp"
	"context"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/repository/sqldb"
)

// adapter is a part of the library that keeps rows in SQL.
type adapter struct {
	name string
	// schema makes its tables.
	schema func(ctx context.Context, db *sqldb.DB) error
	// run makes it send all its statements, to databases that open makes.
	run func(t *testing.T, open func(t testing.TB) *sqldb.DB)
	// fill are statements that fill its tables. FROM series has a row for each i; @json marks JSON of PostgreSQL.
	fill []string
	// reads are parts of statements that read more than they return, and say so, by the reason.
	reads map[string]string
}

// Every statement that the library sends, collected from the conformance suites as they run, reads no more of tables
// with many rows than it returns or changes, and a constant. SILLAR_PLAN_ROWS is how many rows; default 5,000.
func TestStatementsReadNoMoreThanTheyReturn(t *testing.T) {
	rows, err := strconv.Atoi(cmp.Or(os.Getenv("SILLAR_PLAN_ROWS"), "5000"))
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range adapters() {
		t.Run(a.name+"/postgresql", func(t *testing.T) {
			statements := &testenv.Statements{}
			statements.Server(t)
			fromPool := func(t testing.TB) *sqldb.DB {
				return sqldb.Must(sqldb.FromPool(statements.Pool(t), sqldb.Config{StatementTimeout: -1}))
			}
			t.Run("suite", func(t *testing.T) { a.run(t, fromPool) })
			db := sqldb.Must(sqldb.Open(t.Context(), testenv.Postgres(t), sqldb.Config{StatementTimeout: -1}))
			t.Cleanup(func() { _ = db.Close() })
			a.make(t, db, rows)
			list, all := statements.ReadMoreOnPostgres(t, db.Pool())
			a.report(t, list, all)
		})
		t.Run(a.name+"/sqlite", func(t *testing.T) {
			statements := &testenv.Statements{}
			fromSQL := func(t testing.TB) *sqldb.DB {
				return sqldb.Must(sqldb.FromSQL(statements.SQLite(t), sqldb.SQLite, sqldb.Config{}))
			}
			t.Run("suite", func(t *testing.T) { a.run(t, fromSQL) })
			db := sqldb.Must(sqldb.Open(t.Context(), testenv.SQLite(t), sqldb.Config{Synchronous: "OFF"}))
			t.Cleanup(func() { _ = db.Close() })
			a.make(t, db, rows)
			list, all := statements.ScansOnSQLite(t, db.SQL())
			a.report(t, list, all)
		})
	}
}

// make makes the tables and fills them.
func (a adapter) make(t *testing.T, db *sqldb.DB, rows int) {
	t.Helper()
	if err := a.schema(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	series, kind, xid := "generate_series(1, $1) AS series(i)", "::json", "pg_current_xact_id()"
	if db.Dialect() == sqldb.SQLite {
		series = "(WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < $1) SELECT i FROM s) AS series"
		kind, xid = "", "0"
	}
	for _, fill := range a.fill {
		of, statement, found := strings.Cut(fill, ": ")
		if !found {
			of, statement = "", fill
		}
		if of != "" && of != string(db.Dialect()) {
			continue
		}
		statement = strings.NewReplacer("series", series, "@json", kind, "@xid", xid).Replace(statement)
		if _, err := db.Querier(t.Context()).Exec(t.Context(), statement, rows); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	if _, err := db.Querier(t.Context()).Exec(t.Context(), "ANALYZE"); err != nil {
		t.Fatal(err)
	}
}

func (a adapter) report(t *testing.T, list []string, all int) {
	t.Helper()
	if all < 2 {
		t.Errorf("only %d statements were collected", all)
	}
next:
	for _, found := range list {
		statement, _, _ := strings.Cut(found, "\n{")
		for part := range a.reads {
			if strings.Contains(statement, part) {
				continue next
			}
		}
		t.Errorf("%.6000s", found)
	}
	t.Logf("%d statements", all)
}

// must ends the test with an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func adapters() []adapter {
	return []adapter{sagas(), outboxes(), inboxes(), events(), tokens(), apiKeys(), signingKeys(), barriers(),
		repositories()}
}
