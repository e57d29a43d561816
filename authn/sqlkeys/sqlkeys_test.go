package sqlkeys_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/authn/authntest"
	"github.com/sillar-go/sillar/authn/sqlkeys"
	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/repository/sqldb"
	_ "github.com/sillar-go/sillar/repository/sqldb/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	secret = []byte(strings.Repeat("s", 32))
	quiet  = slog.New(slog.DiscardHandler)
)

func open(t *testing.T, dsn string) *sqldb.DB {
	t.Helper()
	db := sqldb.Must(sqldb.Open(t.Context(), dsn, sqldb.Config{}))
	t.Cleanup(func() { _ = db.Close() })
	if err := store(t, db).EnsureSchema(t.Context()); err != nil {
		t.Fatal(err)
	}
	return db
}

func store(t *testing.T, db *sqldb.DB) *sqlkeys.Store {
	t.Helper()
	return sqlkeys.Must(sqlkeys.New(db, sqlkeys.Config{Secret: secret}))
}

func TestConformance(t *testing.T) {
	for name, dsn := range testenv.SQL() {
		t.Run(name, func(t *testing.T) {
			authntest.RunKeys(t, func(t *testing.T) (authn.KeyStore, func() authn.KeyStore) {
				db := open(t, dsn(t))
				return store(t, db), func() authn.KeyStore { return store(t, db) }
			})
		})
	}
}

// Three replicas start at once on an empty database and rotate at once: each verifies what the others sign.
func TestReplicasShareKeys(t *testing.T) {
	for name, dsn := range testenv.SQL() {
		t.Run(name, func(t *testing.T) {
			db := open(t, dsn(t))
			var sets [3]*authn.KeySet
			var wg sync.WaitGroup
			for i := range sets {
				wg.Go(func() {
					k, err := authn.NewKeySet(store(t, db), authn.KeyConfig{PublishAhead: -1, RefreshEvery: time.Millisecond,
						Logger: quiet})
					if err != nil {
						t.Error(err)
						return
					}
					sets[i] = k
					if err := k.Rotate(t.Context()); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if t.Failed() {
				return
			}
			for i, signs := range sets {
				issuer := authn.Must(authn.NewIssuer(signs, authn.NewMemoryTokens(), authn.IssuerConfig{Issuer: "x",
					Audience: []string{"y"}, Logger: quiet}))
				p, err := issuer.Issue(t.Context(), authn.Subject{ID: "u"})
				if err != nil {
					t.Fatal(err)
				}
				for j, verifies := range sets {
					v := authn.Must(authn.NewVerifier(verifies, authn.VerifierConfig{Issuer: "x", Audience: []string{"y"},
						Logger: quiet}))
					if _, err := v.Verify(t.Context(), p.AccessToken); err != nil {
						t.Errorf("replica %d on a token of %d: %v", j, i, err)
					}
				}
			}
		})
	}
}

// The database alone signs nothing; a secret can be replaced; keys of another version do not decrypt.
func TestKeysAreEncrypted(t *testing.T) {
	db := open(t, testenv.SQLite(t))
	ctx := t.Context()
	k, err := authn.GenerateKey(authn.EdDSA, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := store(t, db).Save(ctx, []authn.Key{k}, 0); err != nil {
		t.Fatal(err)
	}
	var sealed []byte
	if err := db.Querier(ctx).QueryRow(ctx, "SELECT sealed FROM sillar_signing_keys").Scan(&sealed); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(sealed, []byte(k.ID)) || bytes.Contains(sealed, k.Private.Reveal()) {
		t.Error("the table shows the keys")
	}
	fresh := []byte(strings.Repeat("n", 32))
	other := sqlkeys.Must(sqlkeys.New(db, sqlkeys.Config{Secret: fresh}))
	if _, _, err := other.Load(ctx); err == nil {
		t.Error("another secret decrypts")
	}
	both := sqlkeys.Must(sqlkeys.New(db, sqlkeys.Config{Secret: fresh, Previous: [][]byte{secret}}))
	keys, version, err := both.Load(ctx)
	if err != nil || len(keys) != 1 || keys[0].ID != k.ID {
		t.Fatalf("with the previous secret: %d keys, %v", len(keys), err)
	}
	if err := both.Save(ctx, keys, version); err != nil {
		t.Fatal(err)
	}
	if keys, _, err := other.Load(ctx); err != nil || len(keys) != 1 {
		t.Errorf("after the next save: %d keys, %v", len(keys), err)
	}
	if _, err := db.Querier(ctx).Exec(ctx, "UPDATE sillar_signing_keys SET version = version + 1"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := other.Load(ctx); err == nil {
		t.Error("keys that were moved to another version decrypt")
	}
	if _, err := sqlkeys.New(db, sqlkeys.Config{Secret: []byte("short")}); !errors.Is(err, authn.ErrWeakKey) {
		t.Errorf("a short secret: got %v, want ErrWeakKey", err)
	}
}

// Keys are saved outside the caller's transaction: what signed a token is never rolled back.
func TestSaveJoinsNoTransaction(t *testing.T) {
	db := open(t, testenv.Postgres(t))
	undo := errors.New("undo")
	s := store(t, db)
	err := db.InTx(t.Context(), func(ctx context.Context) error {
		k, err := authn.GenerateKey(authn.EdDSA, time.Now())
		if err == nil {
			err = s.Save(ctx, []authn.Key{k}, 0)
		}
		return errors.Join(err, undo)
	})
	if !errors.Is(err, undo) {
		t.Fatal(err)
	}
	if keys, _, err := s.Load(t.Context()); err != nil || len(keys) != 1 {
		t.Errorf("after the rollback: %d keys, %v", len(keys), err)
	}
}
