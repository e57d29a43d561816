package benchmarks

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jwk"
	jwxjwt "github.com/lestrrat-go/jwx/v3/jwt"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/authn/sqltokens"
	"github.com/sillar-go/sillar/repository/sqldb"
)

const (
	authnIssuer   = "https://shop.test"
	authnAudience = "shop"
)

// oneKey is a KeySource of one key.
type oneKey []authn.VerifyKey

func (o oneKey) Keys(context.Context, string, authn.Algorithm) ([]authn.VerifyKey, error) {
	return o, nil
}

// BenchmarkAuthnVerify verifies one token, of which each contestant checks signature, expiry, issuer and audience.
// What only ours does besides is in authn.md.
func BenchmarkAuthnVerify(b *testing.B) {
	for _, alg := range []authn.Algorithm{authn.HS256, authn.EdDSA, authn.ES256, authn.RS256} {
		token, key := issueToken(b, alg)
		ctx := context.Background()
		verifier := func(cache int) *authn.Verifier {
			return authn.Must(authn.NewVerifier(oneKey{key}, authn.VerifierConfig{Issuer: authnIssuer,
				Audience: []string{authnAudience}, CacheSize: cache}))
		}
		ours, cached := verifier(-1), verifier(0)
		keyFunc := func(*jwt.Token) (any, error) { return key.Public, nil }
		parser := jwt.NewParser(jwt.WithValidMethods([]string{string(alg)}), jwt.WithIssuer(authnIssuer),
			jwt.WithAudience(authnAudience), jwt.WithExpirationRequired())
		peer, err := jwk.Import(key.Public)
		if err != nil {
			b.Fatal(err)
		}
		signature, ok := jwa.LookupSignatureAlgorithm(string(alg))
		if !ok {
			b.Fatal(alg)
		}
		b.Run(string(alg), func(b *testing.B) {
			compare(b, succeeds, []contestant{
				{"sillar", func() error { _, err := ours.Verify(ctx, token); return err }},
				{"sillar-cached", func() error { _, err := cached.Verify(ctx, token); return err }},
				{"golang-jwt", func() error { _, err := parser.ParseWithClaims(token, jwt.MapClaims{}, keyFunc); return err }},
				{"golang-jwt-bare", func() error { _, err := jwt.ParseWithClaims(token, jwt.MapClaims{}, keyFunc); return err }},
				{"jwx", func() error {
					_, err := jwxjwt.ParseString(token, jwxjwt.WithKey(signature, peer), jwxjwt.WithIssuer(authnIssuer),
						jwxjwt.WithAudience(authnAudience),
						jwxjwt.WithRequiredClaim("exp"))
					return err
				}},
			})
		})
	}
}

// issueToken makes a token as the shop does, and the key that verifies it.
func issueToken(b *testing.B, alg authn.Algorithm) (string, authn.VerifyKey) {
	ctx := context.Background()
	keys := authn.Must(authn.NewKeySet(authn.NewMemoryKeys(), authn.KeyConfig{Algorithm: alg,
		Logger: slog.New(slog.DiscardHandler)}))
	issuer := authn.Must(authn.NewIssuer(keys, authn.NewMemoryTokens(), authn.IssuerConfig{Issuer: authnIssuer,
		Audience: []string{authnAudience}, TTL: time.Hour}))
	pair, err := issuer.Issue(ctx, authn.Subject{ID: "01932d0c-7c8e-7000-8000-000000000001",
		Roles: []string{"customer", "admin"}})
	if err != nil {
		b.Fatal(err)
	}
	t, _, err := jwt.NewParser().ParseUnverified(pair.AccessToken, jwt.MapClaims{})
	if err != nil {
		b.Fatal(err)
	}
	kid, _ := t.Header["kid"].(string)
	found, err := keys.Keys(ctx, kid, alg)
	if err != nil {
		b.Fatal(err)
	}
	key := found[0]
	if shared, ok := key.Public.(interface{ Reveal() []byte }); ok { // golang-jwt wants the bytes
		key.Public = shared.Reveal()
	}
	return pair.AccessToken, key
}

// BenchmarkAuthnIssue issues an access token of the shop's form. golang-jwt signs the same claims without a check of
// them.
func BenchmarkAuthnIssue(b *testing.B) {
	for _, alg := range []authn.Algorithm{authn.HS256, authn.EdDSA, authn.ES256, authn.RS256} {
		ctx := context.Background()
		store := authn.NewMemoryKeys()
		keys := authn.Must(authn.NewKeySet(store, authn.KeyConfig{Algorithm: alg, Logger: slog.New(slog.DiscardHandler)}))
		issuer := authn.Must(authn.NewIssuer(keys, authn.NewMemoryTokens(), authn.IssuerConfig{Issuer: authnIssuer,
			Audience: []string{authnAudience}, TTL: time.Hour}))
		all, _, err := store.Load(ctx)
		if err != nil {
			b.Fatal(err)
		}
		var private any = all[0].Private.Reveal()
		if alg != authn.HS256 {
			if private, err = x509.ParsePKCS8PrivateKey(all[0].Private.Reveal()); err != nil {
				b.Fatal(err)
			}
		}
		subject := authn.Subject{ID: "01932d0c-7c8e-7000-8000-000000000001", Roles: []string{"customer", "admin"}}
		method := jwt.GetSigningMethod(string(alg))
		b.Run(string(alg), func(b *testing.B) {
			compare(b, succeeds, []contestant{
				{"sillar", func() error { _, err := issuer.IssueAccess(ctx, subject); return err }},
				{"golang-jwt", func() error {
					now := time.Now()
					t := jwt.NewWithClaims(method, jwt.MapClaims{
						"iss": authnIssuer, "aud": []string{authnAudience}, "sub": subject.ID, "roles": subject.Roles,
						"jti": uuid.Must(uuid.NewV7()).String(), "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
					})
					t.Header["kid"], t.Header["typ"] = all[0].ID, "at+jwt"
					_, err := t.SignedString(private)
					return err
				}},
			})
		})
	}
}

// BenchmarkAuthnRefresh exchanges refresh tokens of 64 logins at once. Each exchange is one look-up, a signature and
// one transaction.
func BenchmarkAuthnRefresh(b *testing.B) {
	keys := authn.Must(authn.NewKeySet(authn.NewMemoryKeys(), authn.KeyConfig{Logger: slog.New(slog.DiscardHandler)}))
	ctx := context.Background()
	stores := map[string]authn.TokenStore{"memory": authn.NewMemoryTokens()}
	if dsn := os.Getenv("SILLAR_POSTGRES_URL"); dsn != "" {
		db := sqldb.Must(sqldb.Open(ctx, dsn, sqldb.Config{}))
		defer db.Close()
		tokens := sqltokens.Must(sqltokens.New(db, sqltokens.Config{Prefix: "bench_authn_"}))
		if err := tokens.EnsureSchema(ctx); err != nil {
			b.Fatal(err)
		}
		defer func() {
			_ = db.Exec(ctx, "DROP TABLE bench_authn_refresh_tokens; DROP TABLE bench_authn_revoked_tokens")
		}()
		stores["postgresql"] = tokens
	}
	for _, name := range []string{"memory", "postgresql"} {
		if stores[name] == nil {
			continue
		}
		b.Run(name+"/64", func(b *testing.B) {
			issuer := authn.Must(authn.NewIssuer(keys, stores[name], authn.IssuerConfig{Issuer: authnIssuer, Grace: -1}))
			pairs := make([]authn.TokenPair, 64)
			for i := range pairs {
				var err error
				if pairs[i], err = issuer.Issue(ctx, authn.Subject{ID: fmt.Sprint("user", i)}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			b.ResetTimer()
			var left atomic.Int64
			left.Store(int64(b.N))
			var wg sync.WaitGroup
			for i := range pairs {
				wg.Go(func() {
					for left.Add(-1) >= 0 {
						next, err := issuer.Refresh(ctx, pairs[i].RefreshToken, "")
						if err != nil {
							b.Error(err)
							return
						}
						pairs[i] = next
					}
				})
			}
			wg.Wait()
		})
	}
}

// BenchmarkAuthnAPIKey verifies an API key that is kept in memory.
func BenchmarkAuthnAPIKey(b *testing.B) {
	ctx := context.Background()
	keys := authn.Must(authn.NewAPIKeys(authn.NewMemoryAPIKeys(), authn.APIKeyConfig{}))
	key, _, err := keys.Issue(ctx, authn.Subject{ID: "robot", Scopes: []string{"orders:read"}}, authn.APIKeyOptions{})
	if err != nil {
		b.Fatal(err)
	}
	compare(b, succeeds, []contestant{{"sillar", func() error { _, err := keys.Verify(ctx, key); return err }}})
}
