package authn_test

import (
	"context"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sillar-go/sillar/authn"
)

// BenchmarkVerify sets Verify, without and with its cache, beside golang-jwt's bare ParseWithClaims.
func BenchmarkVerify(b *testing.B) {
	for _, alg := range []authn.Algorithm{authn.HS256, authn.EdDSA, authn.ES256, authn.RS256} {
		w := newWorld(b, authn.KeyConfig{Algorithm: alg}, authn.IssuerConfig{TTL: time.Hour})
		token := w.issue(b, "user", "admin").AccessToken
		keys, err := w.keys.Keys(context.Background(), kidOf(b, token), alg)
		must(b, err)
		public := keys[0].Public
		if shared, ok := public.(interface{ Reveal() []byte }); ok {
			public = shared.Reveal()
		}
		b.Run(string(alg)+"/golang-jwt", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, err := jwt.ParseWithClaims(token, jwt.MapClaims{}, func(*jwt.Token) (any, error) { return public, nil },
					jwt.WithValidMethods([]string{string(alg)}), jwt.WithIssuer(issuerName), jwt.WithAudience("shop"))
				must(b, err)
			}
		})
		for name, size := range map[string]int{"verify": -1, "cached": 0} {
			v := authn.Must(authn.NewVerifier(w.keys, authn.VerifierConfig{Issuer: issuerName, Audience: []string{"shop"},
				CacheSize: size, Logger: quiet}))
			b.Run(string(alg)+"/"+name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					_, err := v.Verify(context.Background(), token)
					must(b, err)
				}
			})
		}
	}
}

func kidOf(b testing.TB, token string) string {
	t, _, err := jwt.NewParser().ParseUnverified(token, jwt.MapClaims{})
	must(b, err)
	return t.Header["kid"].(string)
}
