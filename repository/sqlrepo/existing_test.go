package sqlrepo_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/sqldb"
	"github.com/sillar-go/sillar/repository/sqlrepo"
)

// Two versions of a program, which know different fields.
type (
	oldPlace struct {
		City string `json:"city"`
	}
	oldOrder struct {
		repository.Meta
		Customer string
		Place    oldPlace
		Items    []oldItem
	}
	oldItem struct {
		SKU string `json:"sku"`
		Qty int    `json:"qty"`
	}
	newPlace struct {
		oldPlace
		Zip string `json:"zip"`
	}
	newItem struct {
		oldItem
		Gift bool `json:"gift"`
	}
	newOrder struct {
		repository.Meta
		Customer string
		Place    newPlace
		Items    []newItem
		Channel  string
		Priority int
		Express  bool
		Weight   float64
		Note     *string
	}
)

func onBoth(t *testing.T, test func(t *testing.T, db *sqldb.DB)) {
	for name, dsn := range testenv.SQL() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := sqldb.Must(sqldb.Open(t.Context(), dsn(t), sqldb.Config{}))
			t.Cleanup(func() { _ = db.Close() })
			test(t, db)
		})
	}
}

func exec(t *testing.T, db *sqldb.DB, script string) {
	t.Helper()
	if err := db.Exec(t.Context(), script); err != nil {
		t.Fatal(err)
	}
}

func TestOldVersionKeepsWhatANewerOneWrote(t *testing.T) {
	onBoth(t, func(t *testing.T, db *sqldb.DB) {
		schema, err := sqlrepo.Schema[newOrder](db.Dialect(), "orders")
		if err != nil {
			t.Fatal(err)
		}
		exec(t, db, schema)
		olds := sqlrepo.Must(sqlrepo.New[oldOrder](db, sqlrepo.Config{Table: "orders"}))
		news := sqlrepo.Must(sqlrepo.New[newOrder](db, sqlrepo.Config{Table: "orders"}))
		ctx := t.Context()
		want, err := news.Create(ctx, newOrder{Customer: "ana", Channel: "web", Priority: 3, Express: true, Weight: 1.5,
			Place: newPlace{oldPlace{"Lima"}, "15001"},
			Items: []newItem{{oldItem{"lamp", 1}, true}, {oldItem{"desk", 1}, true}, {oldItem{"rug", 1}, false}}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := olds.Update(ctx, want.ID, func(_ context.Context, o *oldOrder) error {
			o.Place.City, o.Items[1].Qty = "Cusco", 7
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		want.Place.City, want.Items[1].Qty, want.Version = "Cusco", 7, 2
		check := func(what string) {
			t.Helper()
			got, err := news.Get(ctx, want.ID)
			want.UpdatedAt = got.UpdatedAt
			if d := cmp.Diff(want, got, cmp.AllowUnexported(newPlace{}, newItem{})); d != "" || err != nil {
				t.Errorf("after %s: %v (-want +got):\n%s", what, err, d)
			}
		}
		check("an update")
		o, err := olds.Get(ctx, want.ID)
		if err != nil {
			t.Fatal(err)
		}
		o.Items, o.Customer = o.Items[1:], "bea"
		if _, err := olds.Replace(ctx, o); err != nil {
			t.Fatal(err)
		}
		want.Items, want.Customer, want.Version = want.Items[1:], "bea", 3
		check("a replacement")
	})
}

// A column that a newer version of a program has added is NULL in the rows of an older one.
func TestNullReadsAsTheZeroValue(t *testing.T) {
	onBoth(t, func(t *testing.T, db *sqldb.DB) {
		schema, err := sqlrepo.Schema[oldOrder](db.Dialect(), "orders")
		if err != nil {
			t.Fatal(err)
		}
		exec(t, db, schema)
		olds := sqlrepo.Must(sqlrepo.New[oldOrder](db, sqlrepo.Config{Table: "orders"}))
		ctx := t.Context()
		o, err := olds.Create(ctx, oldOrder{Customer: "ana"})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []string{"channel TEXT", "priority BIGINT", "express BOOLEAN", "weight DOUBLE PRECISION",
			"note TEXT"} {
			exec(t, db, "ALTER TABLE orders ADD COLUMN "+c)
		}
		news := sqlrepo.Must(sqlrepo.New[newOrder](db, sqlrepo.Config{Table: "orders"}))
		full, err := news.Create(ctx, newOrder{Customer: "bea", Channel: "web", Priority: 3, Express: true, Weight: 1.5})
		if err != nil {
			t.Fatal(err)
		}
		got, err := news.Get(ctx, o.ID)
		if err != nil || got.Customer != "ana" || got.Channel != "" || got.Priority != 0 {
			t.Errorf("Get of an old row: %+v, %v", got, err)
		}
		page, err := news.Find(ctx, repository.Query[newOrder]{})
		if err != nil || len(page.Items) != 2 || page.Items[0].Channel != "" || page.Items[1].Channel != "web" ||
			!page.Items[1].Express {
			t.Errorf("Find: %+v, %v", page, err)
		}
		many, err := news.GetMany(ctx, []string{full.ID, o.ID})
		if err != nil || len(many) != 2 || many[0].Weight != 1.5 || many[1].Weight != 0 {
			t.Errorf("GetMany: %+v, %v", many, err)
		}
		if _, err := news.Update(ctx, o.ID, func(_ context.Context,
			n *newOrder) error {
			n.Priority = 9
			return nil
		}); err != nil {
			t.Error(err)
		}
		if got, err := news.Get(ctx, o.ID); err != nil || got.Priority != 9 || got.Channel != "" {
			t.Errorf("after an update: %+v, %v", got, err)
		}
		var channel *string // what was not changed stays NULL
		if err := db.Querier(ctx).QueryRow(ctx, "SELECT channel FROM orders WHERE id = $1",
			o.ID).Scan(&channel); err != nil || channel != nil {
			t.Errorf("channel is %v, %v, want NULL", channel, err)
		}
	})
}

type ticket struct {
	repository.Meta
	State string
	Title string
}

var (
	ticketState = repository.Text(func(x *ticket) *string { return &x.State })
	ticketTitle = repository.Text(func(x *ticket) *string { return &x.Title })
)

// Tables that another program has made have uuid keys, enums and text with collations.
func TestExistingTypesOfPostgres(t *testing.T) {
	db := sqldb.Must(sqldb.Open(t.Context(), testenv.Postgres(t), sqldb.Config{}))
	defer db.Close()
	exec(t, db, `CREATE TYPE state AS ENUM ('open', 'closed', 'archived');
		CREATE TABLE tickets (id uuid PRIMARY KEY, version bigint NOT NULL, created_at timestamptz NOT NULL,
		updated_at timestamptz NOT NULL,
			state state NOT NULL, title varchar(100) NOT NULL, extra text NOT NULL DEFAULT 'x');
		CREATE INDEX ON tickets (title, id)`)
	ctx := t.Context()
	open := func() *sqlrepo.Repo[ticket] {
		return sqlrepo.Must(sqlrepo.New[ticket](db, sqlrepo.Config{Table: "tickets"}))
	}
	r := open()
	if err := r.Check(ctx); err != nil {
		t.Errorf("Check: %v", err)
	}
	var ids []string
	for i := range 25 {
		x, err := r.Create(ctx, ticket{State: []string{"open", "closed"}[i%2], Title: fmt.Sprintf("Ticket %02d", 24-i)})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, x.ID)
	}
	for name, sort := range map[string][]repository.Sort[ticket]{
		"id": nil, "title": {ticketTitle.Asc()}, "state": {ticketState.Desc()},
		"both": {ticketState.Asc(), ticketTitle.Desc()},
	} {
		var got []string
		for x, err := range open().Each(ctx, repository.Query[ticket]{Sort: sort, Limit: 4}) {
			if err != nil {
				t.Fatal(name, err)
			}
			got = append(got, x.ID)
		}
		slices.Sort(got)
		if d := cmp.Diff(ids, got); d != "" {
			t.Errorf("pages by %s (-want +got):\n%s", name, d)
		}
	}
	if n, err := r.Count(ctx, ticketState.Eq("open").And(ticketTitle.Gte("Ticket 10"))); n != 8 || err != nil {
		t.Errorf("Count: %d, %v", n, err)
	}
	for _, fresh := range []*sqlrepo.Repo[ticket]{open(), r} {
		if _, err := fresh.Get(ctx, "no-uuid"); !errors.Is(err, repository.ErrNotFound) {
			t.Errorf("Get of what is no UUID: %v, want ErrNotFound", err)
		}
		if err := fresh.Delete(ctx, "no-uuid"); !errors.Is(err, repository.ErrNotFound) {
			t.Errorf("Delete of what is no UUID: %v, want ErrNotFound", err)
		}
		if many, err := fresh.GetMany(ctx, []string{ids[3], "no-uuid", ids[1]}); err != nil || len(many) != 2 ||
			many[0].ID != ids[3] {
			t.Errorf("GetMany: %v, %v", many, err)
		}
		if _, err := fresh.Update(ctx, ids[0], func(_ context.Context, x *ticket) error {
			x.State = "archived"
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
}

// Paging by a column with a collation of its own reads the pages, by the index that is there.
func TestPagesOfExistingTablesUseTheirIndexes(t *testing.T) {
	pool, plans := testenv.PostgresPlans(t)
	db := sqldb.Must(sqldb.FromPool(pool, sqldb.Config{}))
	exec(t, db,
		`CREATE TABLE tickets (id varchar(40) COLLATE "en-x-icu" PRIMARY KEY, version bigint NOT NULL,
			created_at timestamptz NOT NULL,
			updated_at timestamptz NOT NULL, state text NOT NULL, title varchar(100) COLLATE "en-x-icu" NOT NULL);
		CREATE INDEX ON tickets (title, id);
		INSERT INTO tickets SELECT 'id-' || i, 1, now(), now(), 'open', 'Ticket ' || to_char(i % 1000, 'FM0000')
		FROM generate_series(1, 20000) i;
		ANALYZE tickets`)
	r := sqlrepo.Must(sqlrepo.New[ticket](db, sqlrepo.Config{Table: "tickets"}))
	for name, sort := range map[string][]repository.Sort[ticket]{"id": nil, "title": {ticketTitle.Asc()}} {
		q := repository.Query[ticket]{Sort: sort, Limit: 10, Where: ticketTitle.Gte("Ticket 0900")}
		if sort == nil {
			q.Where = repository.Filter[ticket]{}
		}
		plans.Scans(0)
		for range 3 {
			page, err := r.Find(t.Context(), q)
			if err != nil || len(page.Items) != 10 {
				t.Fatal(name, err)
			}
			q.After = page.Next
		}
		for _, scan := range plans.Scans(500) {
			t.Errorf("by %s: %s", name, scan)
		}
	}
}

func TestCheckNamesWhatDoesNotFit(t *testing.T) {
	onBoth(t, func(t *testing.T, db *sqldb.DB) {
		r := sqlrepo.Must(sqlrepo.New[ticket](db, sqlrepo.Config{Table: "tickets"}))
		var e *sqlrepo.SchemaError
		if err := r.Check(t.Context()); !errors.As(err, &e) || !slices.Contains(e.Problems, "there is no such table") {
			t.Errorf("without a table: %v", err)
		}
		exec(t, db,
			`CREATE TABLE tickets (id TEXT, version TEXT NOT NULL, created_at TIMESTAMP NOT NULL, title TEXT NOT NULL,
				owner TEXT NOT NULL)`)
		want := []string{"column id is not unique: make it the primary key", "column updated_at is missing",
			"column state is missing",
			"column owner must have a value and is no field: give it a default"}
		if db.Dialect() == sqldb.PostgreSQL {
			want = []string{want[0], "column version is of type text: want one of smallint integer bigint numeric",
				"column created_at is a timestamp without time zone: make it one with", want[1], want[2], want[3]}
		}
		if err := r.Check(t.Context()); !errors.As(err, &e) || cmp.Diff(want, e.Problems) != "" {
			t.Errorf("(-want +got):\n%s", cmp.Diff(want, e.Problems))
		}
		schema, err := sqlrepo.Schema[ticket](db.Dialect(), "good")
		if err != nil {
			t.Fatal(err)
		}
		exec(t, db, schema)
		if err := sqlrepo.Must(sqlrepo.New[ticket](db, sqlrepo.Config{Table: "good"})).Check(t.Context()); err != nil {
			t.Errorf("of what Schema makes: %v", err)
		}
	})
}

// COPY works where a pooler gives each transaction another connection.
func TestCreateManyThroughAPooler(t *testing.T) {
	db := sqldb.Must(sqldb.Open(t.Context(), testenv.PgBouncer(t, testenv.Postgres(t)), sqldb.Config{}))
	defer db.Close()
	schema, err := sqlrepo.Schema[ticket](db.Dialect(), "tickets")
	if err != nil {
		t.Fatal(err)
	}
	exec(t, db, schema)
	r := sqlrepo.Must(sqlrepo.New[ticket](db, sqlrepo.Config{Table: "tickets"}))
	for round := range 3 {
		list := make([]ticket, 500)
		for i := range list {
			list[i] = ticket{State: "open", Title: fmt.Sprint(round, "\t", i)}
		}
		if _, err := r.CreateMany(t.Context(), list); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := r.Count(t.Context(), ticketState.Eq("open")); n != 1500 || err != nil {
		t.Errorf("%d are stored, %v, want 1500", n, err)
	}
}
