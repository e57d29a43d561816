package authn

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
)

// RevocationEndpointConfig tunes a revocation endpoint. The zero value is useful.
type RevocationEndpointConfig struct {
	// Client checks the id and secret of a client, as TokenEndpointConfig.Client does. Nil: clients are public.
	Client func(ctx context.Context, id, secret string) error
	// Logger logs failures that are not the fault of the client. Default slog.Default().
	Logger *slog.Logger
}

// RevocationEndpoint returns the OAuth 2.0 revocation endpoint (RFC 7009) of an issuer: a client posts a token of its
// own, and the login of a refresh token ends, or an access token is revoked by its id. A token that is not valid any
// more is answered with 200, as one that was just revoked. A nil issuer panics.
func RevocationEndpoint(issuer *Issuer, cfg RevocationEndpointConfig) http.Handler {
	if issuer == nil {
		panic("authn: RevocationEndpoint needs an Issuer")
	}
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := revokePosted(w, r, issuer, cfg); err != nil {
			writeOAuthError(w, r, cfg.Logger, err)
			return
		}
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusOK)
	})
}

func revokePosted(w http.ResponseWriter, r *http.Request, issuer *Issuer, cfg RevocationEndpointConfig) error {
	form, err := readForm(w, r)
	if err != nil {
		return err
	}
	clientID, err := authenticateClient(w, r, form, cfg.Client)
	if err != nil {
		return err
	}
	token := form.Get("token") // token_type_hint is not needed: the kinds differ
	if token == "" {
		return badRequest("token is missing")
	}
	err = issuer.revoke(r.Context(), token, func(owner string) bool { return owner == "" || owner == clientID })
	if errors.Is(err, ErrClient) {
		return &oauthError{http.StatusBadRequest, "invalid_grant", "The token belongs to another client."}
	}
	return err
}
