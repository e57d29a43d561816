package sqlrepo_test

import (
	"context"
	"reflect"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/sqldb"
	"github.com/sillar-go/sillar/repository/sqlrepo"
)

type level string

type shelf struct {
	repository.Meta
	Tags    []string
	Names   []string
	Numbers []int64
	Small   []int
	Weights []float64
	Flags   []bool
	Owners  []uuid.UUID
	Keys    []string
	Levels  []level
	Extra   []string // jsonb
	Plain   []string // json in a column of text
	Older   []string // json
	Place   struct {
		City   string   `json:"city"`
		Labels []string `json:"labels"`
	} // in a column of text
}

const shelves = `CREATE TYPE level AS ENUM ('low', 'high one');
	CREATE TABLE shelves (id text PRIMARY KEY, version bigint NOT NULL, created_at timestamptz NOT NULL,
		updated_at timestamptz NOT NULL, tags text[], names varchar(100)[], numbers bigint[], small integer[],
		weights double precision[], flags boolean[], owners uuid[], keys uuid[], levels level[], extra jsonb, plain text,
		older json, place text);
	CREATE INDEX shelves_tags ON shelves USING gin (tags)`

// Lists are read from, written to and found in the arrays of a table that another program made.
func TestArraysOfExistingTables(t *testing.T) {
	for name, dsn := range map[string]string{"prepared": "", "pooler": "default_query_exec_mode=cache_describe",
		"simple": "default_query_exec_mode=exec"} {
		t.Run(name, func(t *testing.T) {
			url := testenv.Postgres(t)
			if dsn != "" {
				url += map[bool]string{true: "&", false: "?"}[strings.Contains(url, "?")] + dsn
			}
			db := sqldb.Must(sqldb.Open(t.Context(), url, sqldb.Config{}))
			t.Cleanup(func() { _ = db.Close() })
			exec(t, db, shelves)
			r := sqlrepo.Must(sqlrepo.New[shelf](db, sqlrepo.Config{Table: "shelves"}))
			if err := r.Check(t.Context()); err != nil {
				t.Fatal(err)
			}
			r = sqlrepo.Must(sqlrepo.New[shelf](db, sqlrepo.Config{Table: "shelves"})) // which has not looked yet
			id := uuid.MustParse("0190b2f0-1234-7abc-8def-0123456789ab")
			full := shelf{Tags: []string{"a,b", `q"\`, "NULL", "", "{x}", "ä", " x "}, Names: []string{"n"},
				Numbers: []int64{-1, 9007199254740993}, Small: []int{}, Weights: []float64{0.5, -1e300, 3},
				Flags:  []bool{true, false},
				Owners: []uuid.UUID{id}, Keys: []string{id.String()}, Levels: []level{"high one", "low"}, Extra: []string{"e"},
				Plain: []string{"p"}, Older: []string{"o"}}
			full.Place.City, full.Place.Labels = "Ulm", []string{"l"}
			same := func(what string, got, want shelf) {
				t.Helper()
				if got.Meta = want.Meta; !reflect.DeepEqual(got, want) {
					t.Errorf("%s: got %+v, want %+v", what, got, want)
				}
			}
			created, err := r.Create(t.Context(), full)
			if err != nil {
				t.Fatal(err)
			}
			part := shelf{Meta: repository.Meta{ID: "copied"}, Tags: full.Tags, Owners: full.Owners, Flags: full.Flags,
				Weights: full.Weights, Numbers: full.Numbers}
			if _, err := r.CreateMany(t.Context(), []shelf{part, {}}); err != nil {
				t.Fatal(err)
			}
			got, err := r.Get(t.Context(), created.ID)
			if err != nil {
				t.Fatal(err)
			}
			same("Get", got, full)
			copied, err := r.Get(t.Context(), "copied")
			if err != nil {
				t.Fatal(err)
			}
			part.Meta = copied.Meta
			same("CreateMany", copied, part)
			if _, err := r.Update(t.Context(), created.ID, func(_ context.Context, s *shelf) error {
				s.Tags, s.Numbers, s.Levels = append(s.Tags, "new"), nil, nil
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			full.Tags, full.Numbers, full.Levels = append(full.Tags, "new"), nil, nil
			if got, err = r.Get(t.Context(), created.ID); err != nil {
				t.Fatal(err)
			}
			same("Update", got, full)
			if got, err = r.Put(t.Context(), full); err != nil {
				t.Fatal(err)
			}
			same("Put", got, full)
			findInArrays(t, r, id)
		})
	}
}

func findInArrays(t *testing.T, r repository.Repository[shelf], id uuid.UUID) {
	t.Helper()
	tags := repository.List(func(s *shelf) *[]string { return &s.Tags })
	names := repository.List(func(s *shelf) *[]string { return &s.Names })
	numbers := repository.List(func(s *shelf) *[]int64 { return &s.Numbers })
	weights := repository.List(func(s *shelf) *[]float64 { return &s.Weights })
	flags := repository.List(func(s *shelf) *[]bool { return &s.Flags })
	owners := repository.List(func(s *shelf) *[]uuid.UUID { return &s.Owners })
	keys := repository.List(func(s *shelf) *[]string { return &s.Keys })
	for name, c := range map[string]struct {
		filter repository.Filter[shelf]
		want   int64
	}{
		"text": {tags.Contains("new"), 2}, "text with signs": {tags.Contains(`q"\`), 3}, "a part": {tags.Contains("ne"), 0},
		"varchar": {names.Contains("n"), 2}, "bigint": {numbers.Contains(9007199254740993), 1},
		"float": {weights.Contains(3), 3}, "boolean": {flags.Contains(false), 3}, "uuid": {owners.Contains(id), 3},
		"uuid as text": {keys.Contains(id.String()), 2}, "text that is no uuid": {keys.Contains("x"), 0},
		"jsonb":                   {repository.List(func(s *shelf) *[]string { return &s.Extra }).Contains("e"), 2},
		"JSON in text":            {repository.List(func(s *shelf) *[]string { return &s.Plain }).Contains("p"), 2},
		"json":                    {repository.List(func(s *shelf) *[]string { return &s.Older }).Contains("o"), 2},
		"a field of JSON in text": {repository.Text(func(s *shelf) *string { return &s.Place.City }).HasPrefix("U"), 2},
		"a list inside":           {repository.List(func(s *shelf) *[]string { return &s.Place.Labels }).Contains("l"), 2},
	} {
		if n, err := r.Count(t.Context(), c.filter); n != c.want || err != nil {
			t.Errorf("%s: got %d, %v, want %d", name, n, err, c.want)
		}
	}
}

// What other programs have put into arrays is read: NULL, elements that need no quotes, other bounds.
func TestArraysOfOtherPrograms(t *testing.T) {
	db := sqldb.Must(sqldb.Open(t.Context(), testenv.Postgres(t), sqldb.Config{}))
	t.Cleanup(func() { _ = db.Close() })
	exec(t, db, shelves+`; INSERT INTO shelves (id, version, created_at, updated_at, tags, numbers)
		VALUES ('a', 1, now(), now(), '[2:3]={x,"y z"}', '{}'), ('b', 1, now(), now(), ARRAY['t', NULL, 'f'], ARRAY[1, NULL]),
		('c', 1, now(), now(), '{{x},{y}}', '{}')`)
	r := sqlrepo.Must(sqlrepo.New[shelf](db, sqlrepo.Config{Table: "shelves"}))
	a, err := r.Get(t.Context(), "a")
	if err != nil || !reflect.DeepEqual(a.Tags, []string{"x", "y z"}) || a.Numbers == nil || len(a.Numbers) != 0 {
		t.Errorf("other bounds, and an empty array: got %q, %v, %v", a.Tags, a.Numbers, err)
	}
	b, err := r.Get(t.Context(), "b")
	if err != nil || !reflect.DeepEqual(b.Tags, []string{"t", "", "f"}) || !reflect.DeepEqual(b.Numbers, []int64{1, 0}) {
		t.Errorf("NULL inside: got %q, %v, %v, want the zero value", b.Tags, b.Numbers, err)
	}
	if c, err := r.Get(t.Context(), "c"); err == nil {
		t.Errorf("two dimensions: got %q without an error", c.Tags)
	}
	exec(t, db, "ALTER TABLE shelves ALTER COLUMN flags TYPE timestamptz[] USING NULL")
	if err := r.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "flags") {
		t.Errorf("Check of an array of another type: got %v, want one that names flags", err)
	}
}
