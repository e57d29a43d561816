package issuers_test

import (
	"fmt"

	"github.com/sillar-go/sillar/authn/issuers"
)

func Example() {
	cfg := issuers.Keycloak("https://login.example.com/realms/shop", "orders")
	fmt.Println(cfg.Issuer)
	fmt.Println(cfg.RolesClaim)
	// keys, err := jwks.Discover(cfg.Issuer, jwks.Config{})
	// v, err := authn.NewVerifier(keys, cfg)

	// Output:
	// https://login.example.com/realms/shop
	// realm_access.roles
}
