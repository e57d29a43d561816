package authn

import (
	"encoding/json"
	"net/http"
)

// MetadataConfig names the endpoints that an Issuer publishes. All are absolute URLs; an empty one is left out.
type MetadataConfig struct {
	// JWKSURI is where KeySet.Handler is served. Verifiers need it.
	JWKSURI string
	// TokenEndpoint is where TokenEndpoint is served.
	TokenEndpoint string
	// RevocationEndpoint is where RevocationEndpoint is served.
	RevocationEndpoint string
	// GrantTypes are those that the token endpoint serves. Default "password" and "refresh_token".
	GrantTypes []string
	// Scopes are those that clients may ask for.
	Scopes []string
}

// metadata is the document of RFC 8414, with what OpenID Connect's discovery requires of clients that read it.
type metadata struct {
	Issuer             string   `json:"issuer"`
	JWKSURI            string   `json:"jwks_uri,omitempty"`
	TokenEndpoint      string   `json:"token_endpoint,omitempty"`
	RevocationEndpoint string   `json:"revocation_endpoint,omitempty"`
	GrantTypes         []string `json:"grant_types_supported"`
	ResponseTypes      []string `json:"response_types_supported"`
	SubjectTypes       []string `json:"subject_types_supported"` // OpenID Connect clients refuse metadata without it
	AuthMethods        []string `json:"token_endpoint_auth_methods_supported"`
	SigningAlgorithms  []string `json:"id_token_signing_alg_values_supported"`
	Scopes             []string `json:"scopes_supported,omitempty"`
}

// Metadata serves the metadata of the issuer (RFC 8414), by which verifiers in other languages find its keys. For an
// issuer without a path, serve it at /.well-known/oauth-authorization-server and, for clients that know the discovery
// of OpenID Connect only, at /.well-known/openid-configuration. For https://host/path these are
// /.well-known/oauth-authorization-server/path and /path/.well-known/openid-configuration. There is no authorization
// endpoint, and no ID tokens.
func (i *Issuer) Metadata(cfg MetadataConfig) http.Handler {
	if len(cfg.GrantTypes) == 0 {
		cfg.GrantTypes = []string{"password", "refresh_token"}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
			return
		}
		doc := metadata{
			Issuer:             i.cfg.Issuer,
			JWKSURI:            cfg.JWKSURI,
			TokenEndpoint:      cfg.TokenEndpoint,
			RevocationEndpoint: cfg.RevocationEndpoint,
			GrantTypes:         cfg.GrantTypes,
			ResponseTypes:      []string{},
			SubjectTypes:       []string{"public"},
			AuthMethods:        []string{"client_secret_basic", "client_secret_post", "none"},
			SigningAlgorithms:  i.keys.algorithms(),
			Scopes:             cfg.Scopes,
		}
		data, err := json.Marshal(doc)
		if err != nil { // strings always encode
			panic(err)
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "public, max-age=300")
		_, _ = w.Write(data) // the client may have left
	})
}

// algorithms returns the algorithms of the public keys.
func (k *KeySet) algorithms() []string {
	all := []string{}
	seen := map[Algorithm]bool{}
	for _, r := range k.keys.Load().all {
		if !seen[r.Algorithm] && r.Algorithm != HS256 {
			seen[r.Algorithm] = true
			all = append(all, string(r.Algorithm))
		}
	}
	return all
}
