package sqltokens_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"testing"
	"time"

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
	_, s := openDB(t, dsn)
	return s
}

func openDB(t *testing.T, dsn string) (*sqldb.DB, *sqltokens.Store) {
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
	return db, s
}

func TestSQLite(t *testing.T) {
	authntest.RunTokens(t, func(t *testing.T) authn.TokenStore {
		return open(t, testenv.SQLite(t))
	})
}

func TestPostgreSQL(t *testing.T) {
	authntest.RunTokens(t, func(t *testing.T) authn.TokenStore { return open(t, testenv.Postgres(t)) })
}

func TestMigrationsMatchSchema(t *testing.T) {
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

// A revocation for a reused token persists when the transaction of the caller is rolled back.
func TestReuseInsideRolledBackTransactionRevokes(t *testing.T) {
	errUndo := errors.New("undo")
	for name, dsn := range map[string]func(testing.TB) string{"sqlite": testenv.SQLite, "postgres": testenv.Postgres} {
		t.Run(name, func(t *testing.T) {
			db, s := openDB(t, dsn(t))
			issuer, first := login(t, s)
			if _, err := issuer.Refresh(t.Context(), first.RefreshToken, ""); err != nil {
				t.Fatal(err)
			}
			err := db.InTx(t.Context(), func(ctx context.Context) error {
				if _, err := issuer.Refresh(ctx, first.RefreshToken, ""); !errors.Is(err, authn.ErrReused) {
					t.Errorf("got %v, want ErrReused", err)
				}
				return errUndo
			})
			if !errors.Is(err, errUndo) {
				t.Fatal(err)
			}
			expectRevoked(t, s, first)
		})
	}
	reuseInSQLTx(t)
	t.Run("a transaction of pgx that also holds the first use", func(t *testing.T) {
		db, s := openDB(t, testenv.Postgres(t))
		issuer, first := login(t, s)
		tx, err := db.Pool().Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ctx := db.WithPgxTx(t.Context(), tx)
		if _, err := issuer.Refresh(ctx, first.RefreshToken, ""); err != nil {
			t.Fatal(err)
		}
		if _, err := issuer.Refresh(ctx, first.RefreshToken, ""); !errors.Is(err, authn.ErrReused) {
			t.Errorf("got %v, want ErrReused", err)
		}
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
		expectRevoked(t, s, first)
	})
	t.Run("a transaction of pgx", func(t *testing.T) {
		db, s := openDB(t, testenv.Postgres(t))
		issuer, first := login(t, s)
		if _, err := issuer.Refresh(t.Context(), first.RefreshToken, ""); err != nil {
			t.Fatal(err)
		}
		tx, err := db.Pool().Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := issuer.Refresh(db.WithPgxTx(t.Context(), tx), first.RefreshToken, ""); !errors.Is(err, authn.ErrReused) {
			t.Errorf("got %v, want ErrReused", err)
		}
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
		expectRevoked(t, s, first)
	})
}

// reuseInSQLTx uses a token again inside a transaction of database/sql.
func reuseInSQLTx(t *testing.T) {
	t.Helper()
	t.Run("a transaction of database/sql on sqlite", func(t *testing.T) {
		db, s := openDB(t, testenv.SQLite(t))
		issuer, first := login(t, s)
		second, err := issuer.Refresh(t.Context(), first.RefreshToken, "")
		if err != nil {
			t.Fatal(err)
		}
		tx, err := db.SQL().BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := issuer.Refresh(db.WithSQLTx(t.Context(), tx), first.RefreshToken, ""); !errors.Is(err, authn.ErrReused) {
			t.Errorf("got %v, want ErrReused", err)
		}
		if err := tx.Rollback(); err != nil {
			t.Fatal(err)
		}
		if _, err := issuer.Refresh(t.Context(), second.RefreshToken, ""); !errors.Is(err, authn.ErrRefresh) {
			t.Errorf("the other token of the login: got %v, want ErrRefresh", err)
		}
		if sessions, err := issuer.Sessions(t.Context(), "u1"); err != nil || len(sessions) > 0 {
			t.Errorf("got the sessions %v, %v, want none", sessions, err)
		}
		expectRevoked(t, s, first)
	})
}

// While a transaction that found a reuse is open, the login is refused already, and other calls do not wait for its
// end.
func TestReuseInsideOpenTransactionHoldsNothingUp(t *testing.T) {
	for name, begin := range map[string]func(*testing.T, *sqldb.DB) (context.Context, func() error){
		"sqlite": func(t *testing.T, db *sqldb.DB) (context.Context, func() error) {
			tx, err := db.SQL().BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			return db.WithSQLTx(t.Context(), tx), tx.Rollback
		},
		"postgresql": func(t *testing.T, db *sqldb.DB) (context.Context, func() error) {
			tx, err := db.Pool().Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return db.WithPgxTx(t.Context(), tx), func() error { return tx.Rollback(context.Background()) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			db, s := openDB(t, testenv.SQL()[name](t))
			issuer, first := login(t, s)
			inTx, rollback := begin(t, db)
			if _, err := issuer.Refresh(inTx, first.RefreshToken, ""); err != nil {
				t.Fatal(err)
			}
			if _, err := issuer.Refresh(inTx, first.RefreshToken, ""); !errors.Is(err, authn.ErrReused) {
				t.Errorf("got %v, want ErrReused", err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			for _, user := range []string{"u1", "u2"} {
				if sessions, err := issuer.Sessions(ctx, user); err != nil || len(sessions) > 0 {
					t.Errorf("sessions of %s: got %v, %v, want none", user, sessions, err)
				}
			}
			expectRevoked(t, s, first)
			if err := rollback(); err != nil {
				t.Fatal(err)
			}
			expectRevoked(t, s, first)
			again := sqltokens.Must(sqltokens.New(db, sqltokens.Config{Prefix: "auth_"})) // as after a restart
			expectRevoked(t, again, first)
		})
	}
}

func login(t *testing.T, s authn.TokenStore) (*authn.Issuer, authn.TokenPair) {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	keys := authn.Must(authn.NewKeySet(authn.NewMemoryKeys(), authn.KeyConfig{Logger: quiet}))
	issuer := authn.Must(authn.NewIssuer(keys, s, authn.IssuerConfig{Issuer: "x", Grace: -1, Logger: quiet}))
	pair, err := issuer.Issue(t.Context(), authn.Subject{ID: "u1"})
	if err != nil {
		t.Fatal(err)
	}
	return issuer, pair
}

func expectRevoked(t *testing.T, s authn.TokenStore, p authn.TokenPair) {
	t.Helper()
	sum := sha256.Sum256([]byte(p.RefreshToken))
	if _, err := s.Lookup(t.Context(), hex.EncodeToString(sum[:])); !errors.Is(err, authn.ErrRefresh) {
		t.Errorf("after the rollback: got %v, want the login revoked", err)
	}
}
