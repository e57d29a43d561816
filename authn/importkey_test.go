package authn_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"testing"

	"github.com/sillar-go/sillar/authn"
)

// A key that a team has already signs, in each form that tools write.
func TestImportKey(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	must(t, err)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	must(t, err)
	sec1, err := x509.MarshalECPrivateKey(ecKey)
	must(t, err)
	pkcs8 := func(k any) []byte {
		der, err := x509.MarshalPKCS8PrivateKey(k)
		must(t, err)
		return der
	}
	for name, c := range map[string]struct {
		kind string
		der  []byte
		want authn.Algorithm // "" for a key that is refused
	}{
		"PKCS #1":           {"RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey), authn.RS256},
		"PKCS #8, RSA":      {"PRIVATE KEY", pkcs8(rsaKey), authn.RS256},
		"PKCS #8, P-256":    {"PRIVATE KEY", pkcs8(ecKey), authn.ES256},
		"PKCS #8, Ed25519":  {"PRIVATE KEY", pkcs8(edKey), authn.EdDSA},
		"SEC 1":             {"EC PRIVATE KEY", sec1, authn.ES256},
		"a short RSA key":   {"PRIVATE KEY", pkcs8(short), ""},
		"P-384":             {"PRIVATE KEY", pkcs8(p384), ""},
		"a public key":      {"PUBLIC KEY", []byte("x"), ""},
		"an encrypted one":  {"ENCRYPTED PRIVATE KEY", []byte("x"), ""},
		"damaged":           {"PRIVATE KEY", []byte("x"), ""},
		"another EC format": {"EC PRIVATE KEY", pkcs8(ecKey), ""},
	} {
		k, err := authn.ImportKey("k1", pem.EncodeToMemory(&pem.Block{Type: c.kind, Bytes: c.der}))
		if (err == nil) != (c.want != "") || k.Algorithm != c.want {
			t.Errorf("%s: got %s, %v, want %q", name, k.Algorithm, err, c.want)
		}
		if err != nil {
			continue
		}
		store := authn.NewMemoryKeys()
		must(t, store.Save(t.Context(), []authn.Key{k}, 0))
		keys := authn.Must(authn.NewKeySet(store, authn.KeyConfig{Algorithm: c.want, Logger: quiet}))
		issuer := authn.Must(authn.NewIssuer(keys, authn.NewMemoryTokens(), authn.IssuerConfig{Issuer: "x",
			Audience: []string{"y"}, Logger: quiet}))
		p, err := issuer.Issue(t.Context(), authn.Subject{ID: "u"})
		must(t, err)
		v := authn.Must(authn.NewVerifier(keys, authn.VerifierConfig{Issuer: "x", Audience: []string{"y"}, Logger: quiet}))
		if _, err := v.Verify(t.Context(), p.AccessToken); err != nil || kidOf(t, p.AccessToken) != "k1" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := authn.ImportKey("k1", []byte("not PEM")); err == nil {
		t.Error("text was imported")
	}
}
