package users_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/oauth2"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/authn/mongokeys"
	"github.com/sillar-go/sillar/authn/sqlkeys"
	"github.com/sillar-go/sillar/examples/shop/internal/platform"
	"github.com/sillar-go/sillar/examples/shop/users"
	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/messaging/memory"
	"github.com/sillar-go/sillar/repository/sqldb"
)

var keysSecret = bytes.Repeat([]byte("k"), 32)

// replica runs one of several users services on one database.
func replica(t *testing.T, dsn string) *platform.Service {
	t.Helper()
	broker := memory.Must(memory.New(memory.Config{Source: "test"}))
	s, err := users.New(t.Context(), platform.Config{
		Name: "users", Version: "test", Addr: "127.0.0.1:0", GRPCAddr: "127.0.0.1:0", DB: dsn,
		Broker: broker, LogWriter: io.Discard, Tokens: platform.Tokens{Secret: bytes.Repeat([]byte("s"), 32)},
		KeysSecret: keysSecret,
		Users: []platform.SeedUser{{Username: "admin", Email: "admin@example.com", Password: "correct horse",
			Roles: []string{"admin"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	run(t, s, broker)
	return s
}

// keyStore opens the keys as a replica does.
func keyStore(t *testing.T, dsn string) authn.KeyStore {
	t.Helper()
	if strings.HasPrefix(dsn, "mongodb") {
		return mongokeys.Must(mongokeys.New(testenv.MongoDatabase(t, dsn), mongokeys.Config{Secret: keysSecret}))
	}
	db := sqldb.Must(sqldb.Open(t.Context(), dsn, sqldb.Config{}))
	t.Cleanup(func() { _ = db.Close() })
	return sqlkeys.Must(sqlkeys.New(db, sqlkeys.Config{Secret: keysSecret}))
}

// A token of one replica is accepted by the others and refreshed by another, before and after one of them rotates the
// keys.
func TestReplicasShareKeysAndLogins(t *testing.T) {
	for name, dsn := range map[string]func(testing.TB) string{"postgresql": testenv.Postgres, "mongodb": testenv.Mongo} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := dsn(t)
			replicas := []*platform.Service{replica(t, dsn), replica(t, dsn), replica(t, dsn)}
			accepted := func(token string) {
				t.Helper()
				for i, s := range replicas {
					c := oauth2.NewClient(t.Context(), oauth2.StaticTokenSource(&oauth2.Token{AccessToken: token}))
					if code, _ := call(t, c, http.MethodGet, s.URL()+"/users/me", ""); code != http.StatusOK {
						t.Errorf("replica %d: got %d, want 200", i, code)
					}
				}
			}
			conf := func(s *platform.Service) *oauth2.Config {
				return &oauth2.Config{Endpoint: oauth2.Endpoint{TokenURL: s.URL() + "/token"}}
			}
			before, err := conf(replicas[0]).PasswordCredentialsToken(t.Context(), "admin", "correct horse")
			if err != nil {
				t.Fatal(err)
			}
			accepted(before.AccessToken)
			refreshed, err := conf(replicas[1]).TokenSource(t.Context(),
				&oauth2.Token{RefreshToken: before.RefreshToken}).Token()
			if err != nil {
				t.Fatal(err)
			}
			accepted(refreshed.AccessToken)

			// One process rotates and signs with the new key at once, which the replicas have not seen.
			keys := authn.Must(authn.NewKeySet(keyStore(t, dsn), authn.KeyConfig{PublishAhead: -1}))
			if err := keys.Rotate(t.Context()); err != nil {
				t.Fatal(err)
			}
			issuer := authn.Must(authn.NewIssuer(keys, authn.NewMemoryTokens(), authn.IssuerConfig{
				Issuer: platform.Issuer, Audience: []string{platform.Audience},
			}))
			me, err := authn.Must(authn.NewVerifier(keys, authn.VerifierConfig{Issuer: platform.Issuer,
				Audience: []string{platform.Audience}})).
				Verify(t.Context(), before.AccessToken)
			if err != nil {
				t.Fatal(err)
			}
			after, err := issuer.Issue(t.Context(), authn.Subject{ID: me.ID, Roles: []string{"admin"}})
			if err != nil {
				t.Fatal(err)
			}
			accepted(after.AccessToken)
			accepted(before.AccessToken)
		})
	}
}

// Without the secret of the keys a replica does not start: it would sign with keys that the others refuse.
func TestReplicaWithAnotherSecretDoesNotStart(t *testing.T) {
	dsn := testenv.Postgres(t)
	replica(t, dsn)
	broker := memory.Must(memory.New(memory.Config{Source: "test"}))
	defer broker.Close()
	_, err := users.New(t.Context(), platform.Config{
		Name: "users", Version: "test", Addr: "127.0.0.1:0", GRPCAddr: "127.0.0.1:0", DB: dsn, Broker: broker,
		LogWriter: io.Discard,
		Tokens:    platform.Tokens{Secret: bytes.Repeat([]byte("s"), 32)}, KeysSecret: bytes.Repeat([]byte("x"), 32),
	})
	if err == nil {
		t.Error("a replica with another secret starts")
	}
}
