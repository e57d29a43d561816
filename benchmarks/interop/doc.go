// Package interop tests authn against other implementations of JWT, OAuth 2.0 and OpenID Connect discovery, with tokens
// in both directions: go-oidc, golang.org/x/oauth2, PyJWT, Authlib and jose. It is in the benchmarks module so that
// programs that import authn do not load go-oidc.
//
// The tests of a tool that is not installed are skipped with the line that installs it. Under SILLAR_REQUIRE_SERVICES
// they fail.
package interop
