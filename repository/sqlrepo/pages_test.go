package sqlrepo_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/repositorytest"
	"github.com/sillar-go/sillar/repository/sqldb"
	"github.com/sillar-go/sillar/repository/sqlrepo"
)

// On SQLite a page behind a cursor is a search by the whole key, the id included, in both directions and with NULL
// about. For PostgreSQL the plans of internal/integration show it.
func TestPagesSearchByTheWholeKey(t *testing.T) {
	statements := &testenv.Statements{}
	db := sqldb.Must(sqldb.FromSQL(statements.SQLite(t), sqldb.SQLite, sqldb.Config{}))
	schema, err := sqlrepo.Schema[widget](sqldb.SQLite, "widgets")
	if err != nil {
		t.Fatal(err)
	}
	exec(t, db, schema)
	for _, column := range []string{"price", "rank"} {
		index, err := sqlrepo.Index[widget](sqldb.SQLite, "widgets", column)
		if err != nil {
			t.Fatal(err)
		}
		exec(t, db, index)
	}
	r := sqlrepo.Must(sqlrepo.New[widget](db, sqlrepo.Config{Table: "widgets"}))
	for _, sku := range []string{"a", "b"} {
		if _, err := r.Create(t.Context(), widget{SKU: sku, Rank: new(int64)}); err != nil {
			t.Fatal(err)
		}
	}
	for name, sort := range map[string]repository.Sort[widget]{
		"(price,id)>": repositorytest.Price.Asc(), "(price,id)<": repositorytest.Price.Desc(),
		"(rank,id)>": repositorytest.Rank.Asc(),
	} {
		q := repository.Query[widget]{Sort: []repository.Sort[widget]{sort}, Limit: 1}
		page, err := r.Find(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		statements.PlansOnSQLite(t, db.SQL()) // forgets what has run so far
		q.After = page.Next
		if _, err := r.Find(t.Context(), q); err != nil {
			t.Fatal(err)
		}
		plans := strings.Join(statements.PlansOnSQLite(t, db.SQL()), "\n")
		if !strings.Contains(plans, name+"(?,?)") {
			t.Errorf("got the plans %s, want one that searches %s(?,?)", plans, name)
		}
	}
}

func TestIndexRefuses(t *testing.T) {
	for _, column := range []string{"none", "tags", "id; DROP TABLE widgets"} {
		if _, err := sqlrepo.Index[widget](sqldb.SQLite, "widgets", column); !errors.Is(err, repository.ErrQuery) {
			t.Errorf("Index of %q: got %v, want ErrQuery", column, err)
		}
	}
	if _, err := sqlrepo.Index[widget](sqldb.SQLite, "no table", "price"); err == nil {
		t.Error("a table of a bad name was accepted")
	}
}
