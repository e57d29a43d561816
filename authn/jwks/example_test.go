package jwks_test

import (
	"context"
	"fmt"
	"net/http/httptest"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/authn/jwks"
)

func Example() {
	ctx := context.Background()
	// in the service that issues
	keys := authn.Must(authn.NewKeySet(authn.NewMemoryKeys(), authn.KeyConfig{Logger: quiet}))
	issuer := authn.Must(authn.NewIssuer(keys, authn.NewMemoryTokens(), authn.IssuerConfig{Issuer: "https://shop"}))
	srv := httptest.NewServer(keys.Handler())
	defer srv.Close()

	set, err := jwks.New(srv.URL, jwks.Config{}) // in the services that verify
	if err != nil {
		fmt.Println(err)
		return
	}
	defer set.Close()
	v := authn.Must(authn.NewVerifier(set, authn.VerifierConfig{Issuer: "https://shop"}))

	pair, err := issuer.Issue(ctx, authn.Subject{ID: "ana"})
	if err != nil {
		fmt.Println(err)
		return
	}
	user, err := v.Verify(ctx, pair.AccessToken)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(user.ID)
	// Output: ana
}
