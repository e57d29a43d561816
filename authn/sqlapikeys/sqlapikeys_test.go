package sqlapikeys_test

import (
	"context"
	"errors"
	"testing"

	"go.uber.org/goleak"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/authn/authntest"
	"github.com/sillar-go/sillar/authn/sqlapikeys"
	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/repository/sqldb"
	"github.com/sillar-go/sillar/repository/sqldb/migrate"
	_ "github.com/sillar-go/sillar/repository/sqldb/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, dsn string) (*sqldb.DB, *sqlapikeys.Store) {
	t.Helper()
	db := sqldb.Must(sqldb.Open(t.Context(), dsn, sqldb.Config{}))
	t.Cleanup(func() { _ = db.Close() })
	s := sqlapikeys.Must(sqlapikeys.New(db, sqlapikeys.Config{Prefix: "auth_"}))
	for range 2 {
		if err := s.EnsureSchema(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return db, s
}

func TestConformance(t *testing.T) {
	for name, dsn := range testenv.SQL() {
		t.Run(name, func(t *testing.T) {
			authntest.RunAPIKeys(t, func(t *testing.T) authn.APIKeyStore {
				_, s := open(t, dsn(t))
				return s
			})
		})
	}
}

func TestMigrationsGoUpAndDown(t *testing.T) {
	db := sqldb.Must(sqldb.Open(t.Context(), testenv.SQLite(t), sqldb.Config{}))
	defer db.Close()
	set := migrate.Set{Name: "apikeys", FS: sqlapikeys.Migrations}
	if err := errors.Join(migrate.Up(t.Context(), db, set), migrate.Down(t.Context(), db, set)); err != nil {
		t.Fatal(err)
	}
}

// A key that is issued in a transaction that is rolled back is not there.
func TestCreateJoinsTheTransaction(t *testing.T) {
	db, s := open(t, testenv.Postgres(t))
	keys := authn.Must(authn.NewAPIKeys(s, authn.APIKeyConfig{}))
	undo := errors.New("undo")
	secret := ""
	err := db.InTx(t.Context(), func(ctx context.Context) (err error) {
		if secret, _, err = keys.Issue(ctx, authn.Subject{ID: "u"}, authn.APIKeyOptions{}); err != nil {
			return err
		}
		if _, err := keys.Verify(ctx, secret); err != nil {
			t.Errorf("inside the transaction: %v", err)
		}
		return undo
	})
	if !errors.Is(err, undo) {
		t.Fatal(err)
	}
	if _, err := keys.Verify(t.Context(), secret); !errors.Is(err, authn.ErrAPIKey) {
		t.Errorf("after the rollback: got %v, want ErrAPIKey", err)
	}
}
