package sqlrepo_test

import (
	"context"
	"errors"
	"testing"

	"go.uber.org/goleak"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/repositorytest"
	"github.com/sillar-go/sillar/repository/sqldb"
	_ "github.com/sillar-go/sillar/repository/sqldb/sqlite"
	"github.com/sillar-go/sillar/repository/sqlrepo"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type widget = repositorytest.Widget

func open(t testing.TB, dsn string) (*sqldb.DB, *sqlrepo.Repo[widget]) {
	t.Helper()
	db, err := sqldb.Open(t.Context(), dsn, sqldb.Config{Synchronous: "NORMAL"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	schema, err := sqlrepo.Schema[widget](db.Dialect(), "widgets", repositorytest.Unique...)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Exec(t.Context(), schema); err != nil {
		t.Fatal(err)
	}
	return db, sqlrepo.Must(sqlrepo.New[widget](db, sqlrepo.Config{Table: "widgets"}))
}

func TestConformance(t *testing.T) {
	for name, dsn := range testenv.SQL() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dbs := map[repository.Repository[widget]]*sqldb.DB{}
			repositorytest.Run(t, func(t testing.TB) repository.Repository[widget] {
				db, r := open(t, dsn(t))
				dbs[r] = db
				return r
			}, repositorytest.Features{InTx: func(ctx context.Context, r repository.Repository[widget],
				fn func(context.Context) error) error {
				return dbs[r].InTx(ctx, fn)
			}})
		})
	}
}

func TestViewConformance(t *testing.T) {
	for name, dsn := range testenv.SQL() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			repositorytest.RunView(t, func(t testing.TB) (repository.Repository[widget],
				repository.Reader[repositorytest.Label]) {
				db, r := open(t, dsn(t))
				return r, sqlrepo.Must(sqlrepo.New[repositorytest.Label](db, sqlrepo.Config{Table: "widgets"}))
			}, repositorytest.Features{})
		})
	}
}

func TestMappingConformance(t *testing.T) {
	for name, dsn := range testenv.SQL() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			repositorytest.RunMapping(t, func(t testing.TB) repository.Repository[repositorytest.Mapped] {
				db := sqldb.Must(sqldb.Open(t.Context(), dsn(t), sqldb.Config{}))
				t.Cleanup(func() { _ = db.Close() })
				schema, err := sqlrepo.Schema[repositorytest.Mapped](db.Dialect(), "Order", []string{"order", "user", "id"})
				if err != nil {
					t.Fatal(err)
				}
				if err := db.Exec(t.Context(), schema); err != nil {
					t.Fatal(err)
				}
				return sqlrepo.Must(sqlrepo.New[repositorytest.Mapped](db, sqlrepo.Config{Table: "Order"}))
			}, repositorytest.Features{})
		})
	}
}

// A column that is not there is an error: SQLite takes a name in double quotes for a text.
func TestMissingColumnIsAnError(t *testing.T) {
	for name, dsn := range testenv.SQL() {
		t.Run(name, func(t *testing.T) {
			db := sqldb.Must(sqldb.Open(t.Context(), dsn(t), sqldb.Config{}))
			defer db.Close()
			if err := db.Exec(t.Context(), "CREATE TABLE t (id TEXT PRIMARY KEY)"); err != nil {
				t.Fatal(err)
			}
			r := sqlrepo.Must(sqlrepo.New[widget](db, sqlrepo.Config{Table: "t"}))
			if n, err := r.Count(t.Context(), repositorytest.Name.Eq("name")); err == nil {
				t.Errorf("Count by a missing column: got %d without an error", n)
			}
		})
	}
}

func TestJoinsTheTransaction(t *testing.T) {
	for name, dsn := range testenv.SQL() {
		t.Run(name, func(t *testing.T) {
			db, r := open(t, dsn(t))
			boom := errors.New("boom")
			err := db.InTx(t.Context(), func(ctx context.Context) error {
				w, err := r.Create(ctx, widget{SKU: "a"})
				if err != nil {
					return err
				}
				if _, err := r.Update(ctx, w.ID, func(ctx context.Context, w *widget) error {
					if _, err := db.Tx(ctx); err != nil {
						t.Errorf("the function of Update has no transaction: %v", err)
					}
					w.Price = 1
					return nil
				}); err != nil {
					return err
				}
				return boom
			})
			if !errors.Is(err, boom) {
				t.Fatal(err)
			}
			if n, err := r.Count(t.Context(), repository.Filter[widget]{}); err != nil || n != 0 {
				t.Fatalf("%d rows survived the rollback (%v)", n, err)
			}
		})
	}
}

// Update-or-create inside a transaction: that there was nothing to update does not undo the rest.
func TestMissingRowDoomsNothing(t *testing.T) {
	for name, dsn := range testenv.SQL() {
		t.Run(name, func(t *testing.T) {
			db, r := open(t, dsn(t))
			err := db.InTx(t.Context(), func(ctx context.Context) error {
				none := func(context.Context, *widget) error { return nil }
				if _, err := r.Update(ctx, "none", none); !errors.Is(err, repository.ErrNotFound) {
					t.Errorf("Update: %v", err)
				}
				if err := r.Delete(ctx, "none", none); !errors.Is(err, repository.ErrNotFound) {
					t.Errorf("Delete: %v", err)
				}
				_, err := r.Create(ctx, widget{SKU: "a"})
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			boom := errors.New("boom")
			err = db.InTx(t.Context(), func(ctx context.Context) error {
				w, err := r.Create(ctx, widget{SKU: "b"})
				if err != nil {
					return err
				}
				if _, err := r.Update(ctx, w.ID, func(context.Context, *widget) error { return boom }); !errors.Is(err, boom) {
					t.Errorf("a change that fails: %v", err)
				}
				return nil
			})
			if !errors.Is(err, sqldb.ErrDoomed) {
				t.Errorf("a change that failed, swallowed: %v, want ErrDoomed", err)
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	db, _ := open(t, testenv.SQLite(t))
	for _, table := range []string{"", "W dgets", "w; DROP TABLE x", `"w"`, "a.b.c"} {
		if _, err := sqlrepo.New[widget](db, sqlrepo.Config{Table: table}); err == nil {
			t.Errorf("table %q was accepted", table)
		}
	}
	if _, err := sqlrepo.New[struct{ Name string }](db, sqlrepo.Config{Table: "w"}); err == nil {
		t.Error("an entity without an id was accepted")
	}
}

// What cannot be a query is refused before anything is sent: on a database that is closed the error is the same.
func TestNothingIsSent(t *testing.T) {
	for name, dsn := range testenv.SQL() {
		t.Run(name, func(t *testing.T) {
			db := sqldb.Must(sqldb.Open(t.Context(), dsn(t), sqldb.Config{}))
			r := sqlrepo.Must(sqlrepo.New[widget](db, sqlrepo.Config{Table: "widgets"}))
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			hostile := repository.Text(func(w *widget) *string { return &w.Skipped })
			many := make([]string, 1001)
			for what, c := range map[string]struct {
				q    repository.Query[widget]
				want error
			}{
				"an unmapped field": {repository.Query[widget]{Where: hostile.Eq("x")}, repository.ErrQuery},
				"an unmapped sort key": {repository.Query[widget]{Sort: []repository.Sort[widget]{hostile.Asc()}},
					repository.ErrQuery},
				"a limit":                 {repository.Query[widget]{Limit: 1 << 30}, repository.ErrQuery},
				"an offset":               {repository.Query[widget]{Offset: 1 << 30}, repository.ErrQuery},
				"a cursor of another":     {repository.Query[widget]{After: "AAAAAAAAAAAAAAAAAAAA"}, repository.ErrCursor},
				"more values than go in":  {repository.Query[widget]{Where: repositorytest.SKU.In(many...)}, repository.ErrQuery},
				"nothing wrong, but sent": {repository.Query[widget]{}, nil},
			} {
				_, err := r.Find(t.Context(), c.q)
				if c.want == nil {
					if err == nil || errors.Is(err, repository.ErrQuery) {
						t.Errorf("%s: %v, want the database's error", what, err)
					}
				} else if !errors.Is(err, c.want) {
					t.Errorf("%s: %v, want %v", what, err, c.want)
				}
			}
		})
	}
}

// GetMany does not read all of a table that has grown since it ran first.
func TestGetManyReadsNoMoreThanItReturns(t *testing.T) {
	pool, plans := testenv.PostgresPlans(t)
	db := sqldb.Must(sqldb.FromPool(pool, sqldb.Config{}))
	schema, err := sqlrepo.Schema[widget](db.Dialect(), "widgets")
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Exec(t.Context(), schema); err != nil {
		t.Fatal(err)
	}
	plans.Unanalysed(t, pool, "widgets")
	r := sqlrepo.Must(sqlrepo.New[widget](db, sqlrepo.Config{Table: "widgets"}))
	get := func(want int) {
		t.Helper()
		if got, err := r.GetMany(t.Context(), []string{"w1", "w2", "w3"}); err != nil || len(got) != want {
			t.Fatalf("%d entities, want %d, %v", len(got), want, err)
		}
	}
	get(0)
	const rows = 20_000
	if _, err := r.Create(t.Context(), widget{Meta: repository.Meta{ID: "w"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec(t.Context(),
		`INSERT INTO widgets SELECT (json_populate_record(w, json_build_object('id', 'w' || i))).*
		FROM widgets w, generate_series(1, $1) i`, rows); err != nil {
		t.Fatal(err)
	}
	plans.Scans(rows)
	get(3)
	for _, scan := range plans.Scans(rows) {
		t.Error(scan)
	}
}
