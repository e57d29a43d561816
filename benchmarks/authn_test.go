package benchmarks

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jwk"
	jwxjwt "github.com/lestrrat-go/jwx/v3/jwt"

	"github.com/sillar-go/sillar/authn"
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
			return authn.Must(authn.NewVerifier(oneKey{key}, authn.VerifierConfig{Issuer: authnIssuer, Audience: []string{authnAudience}, CacheSize: cache}))
		}
		ours, cached := verifier(-1), verifier(0)
		keyFunc := func(*jwt.Token) (any, error) { return key.Public, nil }
		parser := jwt.NewParser(jwt.WithValidMethods([]string{string(alg)}), jwt.WithIssuer(authnIssuer), jwt.WithAudience(authnAudience), jwt.WithExpirationRequired())
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
					_, err := jwxjwt.ParseString(token, jwxjwt.WithKey(signature, peer), jwxjwt.WithIssuer(authnIssuer), jwxjwt.WithAudience(authnAudience),
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
	keys := authn.Must(authn.NewKeySet(authn.NewMemoryKeys(), authn.KeyConfig{Algorithm: alg, Logger: slog.New(slog.DiscardHandler)}))
	issuer := authn.Must(authn.NewIssuer(keys, authn.NewMemoryTokens(), authn.IssuerConfig{Issuer: authnIssuer, Audience: []string{authnAudience}, TTL: time.Hour}))
	pair, err := issuer.Issue(ctx, authn.Subject{ID: "01932d0c-7c8e-7000-8000-000000000001", Roles: []string{"customer", "admin"}})
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
