package sqltokens_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/authn/authntest"
	"github.com/sillar-go/sillar/authn/sqltokens"
	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/repository/sqldb"
	"github.com/sillar-go/sillar/repository/sqldb/migrate"
	_ "github.com/sillar-go/sillar/repository/sqldb/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, dsn string) authn.TokenStore {
	t.Helper()
	db, err := sqldb.Open(t.Context(), dsn, sqldb.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	s := sqltokens.Must(sqltokens.New(db, sqltokens.Config{Prefix: "auth_"}))
	for range 2 {
		if err := s.EnsureSchema(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func TestSQLite(t *testing.T) {
	authntest.RunTokens(t, func(t *testing.T) authn.TokenStore {
		return open(t, testenv.SQLite(t))
	})
}

func TestPostgreSQL(t *testing.T) {
	authntest.RunTokens(t, func(t *testing.T) authn.TokenStore { return open(t, testenv.Postgres(t)) })
}

func TestMigrations(t *testing.T) {
	db, err := sqldb.Open(t.Context(), testenv.SQLite(t), sqldb.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	set := migrate.Set{Name: "authn", FS: sqltokens.Migrations}
	if err := migrate.Up(t.Context(), db, set); err != nil {
		t.Fatal(err)
	}
	if err := migrate.Down(t.Context(), db, set); err != nil {
		t.Fatal(err)
	}
}
