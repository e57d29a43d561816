// Package authn authenticates and authorizes callers. It issues JWTs and refresh tokens, rotates the keys that sign
// them, verifies tokens strictly, issues and verifies API keys, guards handlers, and hashes passwords.
//
//	keys, err := authn.NewKeySet(authn.NewFileKeys("keys.json"), authn.KeyConfig{}) // EdDSA, a new key every 30 days
//	tokens := authn.NewMemoryTokens()
//	issuer, err := authn.NewIssuer(keys, tokens, authn.IssuerConfig{Issuer: "https://shop", Audience: []string{"shop"}})
//	v, err := authn.NewVerifier(keys, authn.VerifierConfig{
//		Issuer: "https://shop", Audience: []string{"shop"}, Revocations: tokens})
//
//	mux.Handle("GET /.well-known/jwks.json", keys.Handler())
//	mux.Handle("POST /token", authn.TokenEndpoint(issuer, login, authn.TokenEndpointConfig{}))
//	mux.Handle("GET /users/me", authn.Require(v)(me))
//	mux.Handle("GET /admin/users", authn.Require(v, authn.AnyRole("admin"))(list))
//	...
//	user, ok := authn.FromContext(ctx)
//
// Other services verify with package jwks, which reads the key set over HTTP; gRPC servers with package authngrpc.
// Package issuers has the settings for the tokens of common identity providers. Replicas of an issuer share keys,
// logins and API keys through the stores in packages sqlkeys, sqltokens, sqlapikeys, mongokeys, mongotokens and
// mongoapikeys.
//
// # Guarantees
//
//   - The algorithm belongs to the key. What a token says about algorithms, keys and where to find them is compared or
//     ignored, never followed. A token is refused when two JSON readers could understand it differently, when it is not
//     in canonical form, when it does not expire, and when it is not meant for this issuer and audience.
//   - Keys rotate without a refused request: a new key is published before it signs, an old one verifies until its
//     tokens have expired. Replicas agree through the KeyStore.
//   - Refresh tokens are random, stored as hashes and exchanged on use. Using one again after IssuerConfig.Grace
//     revokes the login. Issuer.Sessions and Issuer.RevokeSession list and end the logins of a user.
//   - API keys have 256 random bits and are stored as hashes, found by a public id and compared in constant time. A
//     rotated key keeps its id, and its old secret works until APIKeyConfig.Overlap has passed. A revoked key is
//     refused from the next request on.
//   - A client learns no reason: 401 and 403 carry the challenge of RFC 6750 and no more. Reasons are in the errors, in
//     the log, and in the counter sillar.authn.refused.
//   - Passwords are never cut. A failed login takes the same time whether or not the user exists, beside stored
//     bcrypt and foreign argon2 hashes once one was compared (PasswordConfig.BcryptCost). PasswordConfig bounds the
//     processors and memory of all logins together.
//
// # What it does not do
//
// It keeps no users. It is not an OpenID provider: it issues no ID tokens and offers no authorization-code flow. Signed
// tokens of OpenID providers are verified. Opaque tokens and their introspection (RFC 7662) are out of scope, as a
// client and as an endpoint. When a login is revoked, its access tokens remain valid until they expire, unless they are
// revoked by id and verifiers know of it (VerifierConfig.Revocations). API keys have no record of their last use.
//
// docs/threat-model.md lists the attackers, the defences with their tests, and what is not protected.
//
// Signatures are verified by github.com/golang-jwt/jwt/v5; everything around them is checked here first.
package authn
