package migrate_test

import (
	"context"
	"embed"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/repository/eventstore"
	"github.com/sillar-go/sillar/repository/eventstore/sqlevents"
	"github.com/sillar-go/sillar/repository/sqldb"
	"github.com/sillar-go/sillar/repository/sqldb/migrate"
	_ "github.com/sillar-go/sillar/repository/sqldb/sqlite"
)

// Up makes the tables of a package under its prefix, again and again without harm, and Down takes them back.
func TestUpAndDown(t *testing.T) {
	for name, dsn := range testenv.SQL() {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			db := sqldb.Must(sqldb.Open(ctx, dsn(t), sqldb.Config{}))
			defer db.Close()
			one := migrate.Set{Name: "events", FS: sqlevents.Migrations}
			other := migrate.Set{Name: "events", FS: sqlevents.Migrations, Prefix: "other_"}
			version := func(s migrate.Set, want int64) {
				t.Helper()
				if v, err := migrate.Version(ctx, db, s); err != nil || v != want {
					t.Errorf("version %d of %q, want %d (%v)", v, s.Prefix, want, err)
				}
			}
			version(one, 0)
			for range 2 {
				if err := migrate.Up(ctx, db, one, other); err != nil {
					t.Fatal(err)
				}
			}
			version(one, 1)
			for _, prefix := range []string{"", "other_"} {
				s := sqlevents.Must(sqlevents.New(db, sqlevents.Config{Prefix: prefix}))
				if _, err := s.Append(ctx, "a", eventstore.NoStream, eventstore.Event{Type: "x"}); err != nil {
					t.Errorf("prefix %q: %v", prefix, err)
				}
			}
			if err := migrate.Down(ctx, db, one); err != nil {
				t.Fatal(err)
			}
			version(one, 0)
			version(other, 1)
			if err := db.Querier(ctx).QueryRow(ctx, "SELECT count(*) FROM sillar_events").Scan(new(int64)); err == nil {
				t.Error("the table is still there")
			}
			if err := db.Querier(ctx).QueryRow(ctx, "SELECT count(*) FROM other_events").Scan(new(int64)); err != nil {
				t.Errorf("the tables of another prefix: %v", err)
			}
		})
	}
}

func TestMigrateRefusesBadSets(t *testing.T) {
	db := sqldb.Must(sqldb.Open(t.Context(), "sqlite::memory:", sqldb.Config{}))
	defer db.Close()
	for what, s := range map[string]migrate.Set{
		"no name":          {FS: sqlevents.Migrations},
		"no files":         {Name: "x"},
		"files of nobody":  {Name: "x", FS: embed.FS{}},
		"a hostile prefix": {Name: "x", FS: sqlevents.Migrations, Prefix: `x"; DROP TABLE y; --`},
		"a hostile name":   {Name: `x"; DROP TABLE y; --`, FS: sqlevents.Migrations},
	} {
		if err := migrate.Up(t.Context(), db, s); err == nil {
			t.Errorf("%s was accepted", what)
		}
		if err := migrate.Print(io.Discard, db.Dialect(), s); err == nil {
			t.Errorf("%s was accepted by Print", what)
		}
	}
}

// Programs with migration tools of their own print the SQL, which makes the same tables.
func ExamplePrint() {
	var out strings.Builder
	err := migrate.Print(&out, sqldb.SQLite, migrate.Set{Name: "events", FS: sqlevents.Migrations, Prefix: "shop_"})
	first, _, _ := strings.Cut(out.String(), "(\n")
	fmt.Println(first, err)
	// Output:
	// -- events
	// CREATE TABLE IF NOT EXISTS shop_streams  <nil>
}

func ExampleUp() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	db := sqldb.Must(sqldb.Open(ctx, "sqlite:"+filepath.Join(dir, "shop.db"), sqldb.Config{}))
	defer db.Close()
	events := migrate.Set{Name: "events", FS: sqlevents.Migrations}
	fmt.Println(migrate.Up(ctx, db, events)) // of every package that the program uses, at its start
	fmt.Println(migrate.Version(ctx, db, events))
	// Output:
	// <nil>
	// 1 <nil>
}

// Several processes start at once, each with the same migrations.
func TestSeveralAtOnce(t *testing.T) {
	dsn := testenv.Postgres(t)
	files := fstest.MapFS{"migrations/postgresql/0001_x.sql": {Data: []byte("-- +goose Up\nCREATE TABLE x (y " +
		"TEXT);\nSELECT pg_sleep(0.1);\n")}}
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			db := sqldb.Must(sqldb.Open(t.Context(), dsn, sqldb.Config{MaxConns: 4}))
			defer db.Close()
			if err := migrate.Up(t.Context(), db, migrate.Set{Name: "x", FS: files}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// Behind a pooler in transaction mode, where there are no sessions, processes that start together wait for each other
// too.
func TestMigrateWorksBehindAPooler(t *testing.T) {
	dsn := testenv.PgBouncer(t, testenv.Postgres(t))
	set := migrate.Set{Name: "events", FS: sqlevents.Migrations}
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			db, err := sqldb.Open(t.Context(), dsn, sqldb.Config{})
			if err != nil {
				t.Error(err)
				return
			}
			defer db.Close()
			if err := migrate.Up(t.Context(), db, set); err != nil {
				t.Error(err)
			}
			if v, err := migrate.Version(t.Context(), db, set); err != nil || v != 1 {
				t.Errorf("version %d, %v", v, err)
			}
		})
	}
	wg.Wait()
}
