// Package jwks reads another service's JWK Set over HTTP and keeps it fresh, for verifiers that do not hold the keys.
//
//	set, err := jwks.New("https://users/.well-known/jwks.json", jwks.Config{})
//	defer set.Close()
//	v, err := authn.NewVerifier(set, authn.VerifierConfig{Issuer: "https://shop", Audience: []string{"shop"}})
//
// # Guarantees
//
//   - The set is read again every Config.Refresh, and when a token names an unknown key, but never more often than
//     every Config.MinInterval, whatever tokens are sent. All callers that wait for keys share one request.
//   - While the endpoint is down, or answers with something else than a set of usable keys, the known keys remain in
//     use. An unknown key then gives authn.ErrUnavailable: it may have been made in the meantime.
//   - New does not wait for the endpoint: services start in any order. Until the first answer, verification gives
//     authn.ErrUnavailable, which is a 503 and not a 401; requests are repeated after 100 ms and growing pauses, and
//     Set.Ready is for the readiness of the service.
//   - Answers are bounded in size; https is required, except for loopback addresses and with Config.Insecure, and
//     redirects may not leave it.
//
// # What it does not do
//
// It follows no jku, x5u or jwk of a token, and takes no symmetric keys from a document.
package jwks
