// Package authn tells who is calling and whether they may: it issues JWTs and refresh tokens, rotates the keys that
// sign them, verifies strictly, guards handlers, and hashes passwords.
//
//	keys, err := authn.NewKeySet(authn.NewFileKeys("keys.json"), authn.KeyConfig{}) // EdDSA, a new key every 30 days
//	tokens := authn.NewMemoryTokens()
//	issuer, err := authn.NewIssuer(keys, tokens, authn.IssuerConfig{Issuer: "https://shop", Audience: []string{"shop"}})
//	v, err := authn.NewVerifier(keys, authn.VerifierConfig{Issuer: "https://shop", Audience: []string{"shop"}, Revocations: tokens})
//
//	mux.Handle("GET /.well-known/jwks.json", keys.Handler())
//	mux.Handle("POST /token", authn.TokenEndpoint(issuer, login, authn.TokenEndpointConfig{}))
//	mux.Handle("GET /users/me", authn.Require(v)(me))
//	mux.Handle("GET /admin/users", authn.Require(v, authn.AnyRole("admin"))(list))
//	...
//	user, ok := authn.FromContext(ctx)
//
// Other services verify with package jwks, which reads the key set over HTTP; gRPC servers with package authngrpc.
//
// # Guarantees
//
//   - The algorithm belongs to the key. What a token says about algorithms, keys and where to find them is compared or
//     ignored, never followed. A token is refused when two JSON readers could understand it differently, when it is not
//     in canonical form, when it does not expire, and when it is not meant for this issuer and audience.
//   - Keys rotate without a refused request: a new key is published before it signs, an old one verifies until its
//     tokens have expired. Replicas agree through the KeyStore.
//   - Refresh tokens are random, stored as hashes and exchanged on use. Using one again after IssuerConfig.Grace
//     revokes the login, whoever does it.
//   - A client learns no reason: 401 and 403 carry the challenge of RFC 6750 and no more. Reasons are in the errors,
//     and in the counter sillar.authn.refused.
//   - Passwords are never cut. A login takes the same time whether or not the user exists, and logins together take no
//     more of the machine than PasswordConfig allows.
//
// # What it does not do
//
// It keeps no users, speaks no OpenID Connect and offers no authorization-code flow. A revoked login's access tokens
// live until they expire, unless they are revoked by id and verifiers know of it (VerifierConfig.Revocations).
//
// docs/threat-model.md says who is kept out by what and by which test, and who is not.
//
// Signatures are github.com/golang-jwt/jwt/v5's; what surrounds them is checked here first.
package authn
