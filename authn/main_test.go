package authn_test

import (
	"context"
	"log/slog"
	"testing"

	"go.uber.org/goleak"

	"github.com/sillar-go/sillar/authn"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

const issuerName = "https://shop.test"

// world is an issuer and a verifier of its tokens.
type world struct {
	keys   *authn.KeySet
	store  *authn.MemoryTokens
	issuer *authn.Issuer
	v      *authn.Verifier
}

func newWorld(t testing.TB, kc authn.KeyConfig, ic authn.IssuerConfig) *world {
	t.Helper()
	kc.Logger, ic.Logger = quiet, quiet
	ic.Issuer, ic.Audience = issuerName, []string{"shop"}
	w := &world{store: authn.NewMemoryTokens()}
	w.keys = authn.Must(authn.NewKeySet(authn.NewMemoryKeys(), kc))
	w.issuer = authn.Must(authn.NewIssuer(w.keys, w.store, ic))
	w.v = authn.Must(authn.NewVerifier(w.keys, authn.VerifierConfig{Issuer: issuerName, Audience: []string{"shop"},
		Revocations: w.store, Logger: quiet}))
	return w
}

func (w *world) issue(t testing.TB, roles ...string) authn.TokenPair {
	t.Helper()
	p, err := w.issuer.Issue(context.Background(), authn.Subject{ID: "u1", Roles: roles})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
