package authn

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"mime"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// TokenEndpointConfig tunes a token endpoint. The zero value is useful.
type TokenEndpointConfig struct {
	// Client checks the id and secret of a client, from HTTP Basic or the form. It returns nil to admit the client,
	// ErrClient to refuse it, and any other error when it cannot check now: the answer is then 503 for ErrUnavailable
	// and 500 for the rest, with a log line. Nil: clients are public. Then a secret is ignored, and the client_id that
	// a client states binds its refresh tokens to that name, without a proof.
	Client func(ctx context.Context, id, secret string) error
	// ClientCredentials returns the subject of the tokens that a client gets for itself, with the grant
	// client_credentials (RFC 6749, section 4.4): usually Subject{ID: clientID, Scopes: scopes} once it has checked that
	// the client may have the scopes. scopes are those that the client asks for, empty when it names none. ErrScope
	// refuses them. Needs Client. Nil: the grant is not offered.
	ClientCredentials func(ctx context.Context, clientID string, scopes []string) (Subject, error)
	// Attempts is the number of wrong passwords for one username from one address before further ones have to wait.
	// One attempt comes back each Every. A right password uses up none, nor does an outage. For all usernames together
	// one address has ten times as many, so that it cannot try one password on all users. Default 10. Negative
	// disables the limit.
	Attempts int
	// Every is how often an attempt comes back. Default 6 s.
	Every time.Duration
	// Address returns the address that attempts are counted by. Default: the IP address of the connection, of IPv6 its /64
	// network. Behind a proxy it reads the header that the proxy, and only the proxy, sets.
	Address func(*http.Request) string
	// Logger logs failures that are not the fault of the client. Default slog.Default().
	Logger *slog.Logger
}

// maxForm is the largest form that is read.
const maxForm = 16 << 10

// TokenEndpoint returns the OAuth2 token endpoint of an issuer, with the grants password, refresh_token and, where it
// is configured, client_credentials, as golang.org/x/oauth2 and other clients expect it. authenticate returns the
// subject of a username and password, or ErrPassword when they do not belong together or the user does not exist. An
// error that matches ErrUnavailable becomes a 503, every other error a 500. A nil issuer or authenticate panics.
func TokenEndpoint(
	issuer *Issuer,
	authenticate func(ctx context.Context, username, password string) (Subject, error),
	cfg TokenEndpointConfig,
) http.Handler {
	if issuer == nil || authenticate == nil {
		panic("authn: TokenEndpoint needs an Issuer and a function that authenticates")
	}
	if cfg.ClientCredentials != nil && cfg.Client == nil {
		panic("authn: TokenEndpointConfig: ClientCredentials needs Client, or every caller could get such a token")
	}
	cfg.Attempts = cmp.Or(cfg.Attempts, 10)
	if cfg.Every <= 0 {
		cfg.Every = 6 * time.Second
	}
	if cfg.Address == nil {
		cfg.Address = address
	}
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	return &tokenEndpoint{issuer: issuer, authenticate: authenticate, cfg: cfg,
		limit: newLimiter(cfg.Attempts, cfg.Every), spray: newLimiter(10*cfg.Attempts, cfg.Every/10)}
}

// address returns the IP address of the connection, of IPv6 the /64 network: one client usually has all of its
// addresses.
func address(r *http.Request) string {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	ip := from.Addr().Unmap()
	if network, err := ip.Prefix(64); err == nil && ip.Is6() {
		return network.String()
	}
	return ip.String()
}

type tokenEndpoint struct {
	issuer       *Issuer
	authenticate func(ctx context.Context, username, password string) (Subject, error)
	cfg          TokenEndpointConfig
	limit        *limiter // for each username and address
	spray        *limiter // for each address
}

// oauthError is an error answer of RFC 6749, section 5.2.
type oauthError struct {
	status int
	Code   string `json:"error"`
	Detail string `json:"error_description,omitempty"`
}

func (e *oauthError) Error() string { return "authn: token endpoint: " + e.Code }

func badRequest(detail string) error {
	return &oauthError{http.StatusBadRequest, "invalid_request", detail}
}

var invalidGrant error = &oauthError{http.StatusBadRequest, "invalid_grant", "The credentials are not valid."}

// ServeHTTP implements http.Handler.
func (t *tokenEndpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	pair, err := t.serve(w, r)
	if err != nil {
		writeOAuthError(w, r, t.cfg.Logger, err)
		return
	}
	writeOAuth(w, http.StatusOK, pair)
}

// writeOAuthError answers with an error of RFC 6749, and logs it when it is not the fault of the client.
func writeOAuthError(w http.ResponseWriter, r *http.Request, log *slog.Logger, err error) {
	e, ok := errors.AsType[*oauthError](err)
	if !ok {
		if r.Context().Err() == nil { // else the client has left
			log.ErrorContext(r.Context(), "authn: an OAuth endpoint failed", "path", r.URL.Path, "error", err)
		}
		e = &oauthError{http.StatusInternalServerError, "server_error", ""}
		if errors.Is(err, ErrUnavailable) {
			w.Header().Set("Retry-After", "1")
			e = &oauthError{http.StatusServiceUnavailable, "temporarily_unavailable", ""}
		}
	}
	writeOAuth(w, e.status, e)
}

func writeOAuth(w http.ResponseWriter, status int, body any) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Pragma", "no-cache")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Type", "application/json")
	data, err := json.Marshal(body)
	if err != nil { // strings and numbers always encode
		panic(err)
	}
	w.WriteHeader(status)
	_, _ = w.Write(data) // the client may have left
}

func (t *tokenEndpoint) serve(w http.ResponseWriter, r *http.Request) (TokenPair, error) {
	form, err := readForm(w, r)
	if err != nil {
		return TokenPair{}, err
	}
	clientID, err := t.client(w, r, form)
	if err != nil {
		return TokenPair{}, err
	}
	switch form.Get("grant_type") {
	case "password":
		return t.password(w, r, clientID, form.Get("username"), form.Get("password"))
	case "refresh_token":
		token := form.Get("refresh_token")
		if token == "" {
			return TokenPair{}, badRequest("refresh_token is missing")
		}
		pair, err := t.issuer.Refresh(r.Context(), token, clientID)
		if errors.Is(err, ErrRefresh) {
			return TokenPair{}, invalidGrant
		}
		return pair, err
	case "client_credentials":
		if t.cfg.ClientCredentials == nil {
			break
		}
		return t.clientCredentials(r.Context(), clientID, splitScopes(form.Get("scope")))
	case "":
		return TokenPair{}, badRequest("grant_type is missing")
	}
	return TokenPair{}, &oauthError{http.StatusBadRequest, "unsupported_grant_type", ""}
}

func (t *tokenEndpoint) clientCredentials(ctx context.Context, clientID string, scopes []string) (TokenPair, error) {
	s, err := t.cfg.ClientCredentials(ctx, clientID, scopes)
	if errors.Is(err, ErrScope) {
		return TokenPair{}, &oauthError{http.StatusBadRequest, "invalid_scope", ""}
	}
	if err != nil {
		return TokenPair{}, err
	}
	s.ClientID = clientID
	return t.issuer.IssueAccess(ctx, s)
}

func (t *tokenEndpoint) password(
	w http.ResponseWriter,
	r *http.Request,
	clientID, username, password string,
) (TokenPair, error) {
	if username == "" || password == "" {
		return TokenPair{}, badRequest("username or password is missing")
	}
	address := t.cfg.Address(r)
	account := strings.ToLower(username) + "\x00" + address
	wait := t.limit.take(account)
	if wait == 0 {
		if wait = t.spray.take(address); wait > 0 {
			t.limit.give(account)
		}
	}
	if wait > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(wait/time.Second)+1))
		return TokenPair{}, &oauthError{http.StatusTooManyRequests, "temporarily_unavailable", "Too many attempts."}
	}
	s, err := t.authenticate(r.Context(), username, password)
	if errors.Is(err, ErrPassword) || errors.Is(err, ErrPasswordTooLong) {
		return TokenPair{}, invalidGrant
	}
	// A right password is no guess: many users behind one address do not use up each other's attempts. Nor does an
	// outage, which reveals nothing about the password.
	t.limit.give(account)
	t.spray.give(address)
	if err != nil {
		return TokenPair{}, err
	}
	s.ClientID = clientID
	return t.issuer.Issue(r.Context(), s)
}

// client returns the id of the client that sent the request, empty when it names none.
func (t *tokenEndpoint) client(w http.ResponseWriter, r *http.Request, form url.Values) (string, error) {
	return authenticateClient(w, r, form, t.cfg.Client)
}

// authenticateClient returns the id of the client that sent a request. check may be nil: then clients are public.
func authenticateClient(
	w http.ResponseWriter, r *http.Request, form url.Values, check func(ctx context.Context, id, secret string) error,
) (string, error) {
	id, secret, basic := r.BasicAuth()
	if basic {
		var err1, err2 error
		id, err1 = url.QueryUnescape(id) // RFC 6749, section 2.3.1
		secret, err2 = url.QueryUnescape(secret)
		if err1 != nil || err2 != nil || form.Has("client_secret") || form.Has("client_id") && form.Get("client_id") != id {
			return "", badRequest("client credentials")
		}
	} else {
		id, secret = form.Get("client_id"), form.Get("client_secret")
	}
	if check == nil {
		return id, nil
	}
	err := check(r.Context(), id, secret)
	if errors.Is(err, ErrClient) {
		w.Header().Set("WWW-Authenticate", `Basic realm="token"`)
		return "", &oauthError{http.StatusUnauthorized, "invalid_client", ""}
	}
	if err != nil {
		return "", fmt.Errorf("authn: check the client: %w", err)
	}
	return id, nil
}

// readForm reads the parameters: from the body only, each at most once.
func readForm(w http.ResponseWriter, r *http.Request) (url.Values, error) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return nil, &oauthError{http.StatusMethodNotAllowed, "invalid_request", "POST is needed"}
	}
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil ||
		media != "application/x-www-form-urlencoded" {
		return nil, badRequest("the body must be application/x-www-form-urlencoded")
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		return nil, badRequest("the form cannot be read")
	}
	for _, values := range r.PostForm {
		if len(values) > 1 {
			return nil, badRequest("a parameter is given twice")
		}
	}
	return r.PostForm, nil
}
