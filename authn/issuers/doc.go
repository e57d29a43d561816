// Package issuers holds the settings with which an authn.Verifier accepts the access tokens of common identity
// providers: what they write into iss, aud and typ, and where they put roles.
//
//	cfg := issuers.Keycloak("https://login.example.com/realms/shop", "orders")
//	keys, err := jwks.Discover(cfg.Issuer, jwks.Config{})
//	v, err := authn.NewVerifier(keys, cfg)
//
// Each function returns an authn.VerifierConfig, which the caller may change: another RolesClaim, Revocations, a
// Logger. Scopes are read from scope and scp for every issuer. Tokens of several issuers are verified by authn.Join.
//
// docs/issuers.md has a table of the issuers and the shapes of their tokens, which the tests check.
//
// # What it does not do
//
// Tokens that are opaque, such as the access tokens of Google, cannot be verified here: they need introspection (RFC
// 7662) by a library of the provider. A multi-tenant application of Entra needs one Verifier a tenant.
package issuers
