package sqlrepo_test

import (
	"testing"
	"time"

	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/sqldb"
	"github.com/sillar-go/sillar/repository/sqlrepo"
)

type hostile struct {
	repository.Meta
	Value []string
	Type  struct {
		Key  string
		Json []string
	}
	Json     []string
	Key      []int
	Path     map[string]string
	Excluded int64
	Rowid    int64
	Select   []bool
	Row      *string
	Case     float64
	End      time.Time
	Null     bool
	Atom     int
}

// Columns have the names that json_each has, that an upsert has, and words of SQL, in a table that is one.
func TestColumnsNamedAsTheDatabaseNamesItsOwn(t *testing.T) {
	onBoth(t, func(t *testing.T, db *sqldb.DB) {
		schema, err := sqlrepo.Schema[hostile](db.Dialect(), "Select", []string{"case", "end"})
		if err != nil {
			t.Fatal(err)
		}
		exec(t, db, schema)
		for _, c := range []string{"excluded", "row", "type.Key", "case"} {
			ix, err := sqlrepo.Index[hostile](db.Dialect(), "Select", c)
			if err != nil {
				t.Fatal(err)
			}
			exec(t, db, ix)
		}
		r := sqlrepo.Must(sqlrepo.New[hostile](db, sqlrepo.Config{Table: "Select"}))
		h := hostile{Value: []string{"a"}, Json: []string{"j"}, Key: []int{7}, Select: []bool{true}, Excluded: 3, Rowid: 9}
		h.Type.Key, h.Type.Json = "k", []string{"n"}
		h, err = r.Create(t.Context(), h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.CreateMany(t.Context(), []hostile{{Case: 1}, {Case: 2}}); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Put(t.Context(), h); err != nil {
			t.Fatal(err)
		}
		checkHostileColumns(t, r)
		if err := r.Check(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// checkHostileColumns finds rows by columns of such names.
func checkHostileColumns(t *testing.T, r *sqlrepo.Repo[hostile]) {
	t.Helper()
	for name, f := range map[string]repository.Filter[hostile]{
		"value":         repository.List(func(h *hostile) *[]string { return &h.Value }).Contains("a"),
		"json":          repository.List(func(h *hostile) *[]string { return &h.Json }).Contains("j"),
		"key":           repository.List(func(h *hostile) *[]int { return &h.Key }).Contains(7),
		"select":        repository.List(func(h *hostile) *[]bool { return &h.Select }).Contains(true),
		"a list inside": repository.List(func(h *hostile) *[]string { return &h.Type.Json }).Contains("n"),
		"text inside":   repository.Text(func(h *hostile) *string { return &h.Type.Key }).HasPrefix("k"),
		"rowid":         repository.Ord(func(h *hostile) *int64 { return &h.Rowid }).Eq(9),
	} {
		if n, err := r.Count(t.Context(), f); n != 1 || err != nil {
			t.Errorf("%s: got %d, %v, want 1", name, n, err)
		}
	}
	key := repository.Text(func(h *hostile) *string { return &h.Type.Key })
	row := repository.Null(func(h *hostile) **string { return &h.Row })
	for _, s := range [][]repository.Sort[hostile]{{key.Asc()}, {key.Desc()}, {row.Asc()}, {row.Desc(), key.Asc()}} {
		n := 0
		for _, err := range r.Each(t.Context(), repository.Query[hostile]{Sort: s, Limit: 1}) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		if n != 3 {
			t.Errorf("a walk: got %d, want 3", n)
		}
	}
	if n, err := r.UpdateWhere(t.Context(), key.Eq("k"), row.To(new(string))); n != 1 || err != nil {
		t.Errorf("UpdateWhere: got %d, %v, want 1", n, err)
	}
}
