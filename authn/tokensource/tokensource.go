// Package tokensource gets access tokens for a service from an OAuth 2.0 token endpoint, with the grant
// client_credentials (RFC 6749, section 4.4), and keeps them until they end.
//
//	source, err := tokensource.New(tokensource.Config{
//		TokenURL: "https://id/token", ClientID: "orders", ClientSecret: secret})
//	client := &http.Client{Transport: source.Transport(nil)} // HTTP: a token in each request
//	creds := authngrpc.PerRPC(source.Token)                  // gRPC
//
// # Guarantees
//
//   - Concurrent callers share one request, and each waits no longer than its own context.
//   - A token is renewed before it ends, in the background, while callers use the old one: an endpoint that is slow or
//     down for less than a fifth of a token's life is not noticed.
//   - After a failure the endpoint is asked again after Config.RetryAfter, so that a dead one costs no request its
//     time.
//   - Secrets and tokens are in no error and no log line.
//
// It starts no goroutine that outlives a request, and needs no Close.
package tokensource

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// ErrUnavailable is matched when the endpoint could not be reached, or answered with a 5xx or 429.
var ErrUnavailable = errors.New("tokensource: the token endpoint is unavailable")

// RefusedError is an answer of the endpoint that refuses the client: trying again does not help.
type RefusedError struct {
	// Status is the HTTP status.
	Status int
	// Code is the error code of RFC 6749, such as "invalid_client", or empty.
	Code string
}

// Error implements error.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("tokensource: the token endpoint refused the client: status %d %s", e.Status, e.Code)
}

// Config names the endpoint and the client. TokenURL, ClientID and ClientSecret are required.
type Config struct {
	// TokenURL is the token endpoint. Required; https, save for loopback addresses and with Insecure.
	TokenURL string
	// ClientID and ClientSecret authenticate the client, by HTTP Basic. Required.
	ClientID, ClientSecret string
	// Scopes are asked for. Default: none is named, and the endpoint decides.
	Scopes []string
	// Parameters are further parameters of the request, such as audience for Auth0.
	Parameters url.Values
	// Timeout bounds a request. Default 10 s.
	Timeout time.Duration
	// RetryAfter is how long an endpoint that failed is not asked again. Default 1 s.
	RetryAfter time.Duration
	// Insecure allows http to hosts that are not loopback. A man in the middle may then read the secret.
	Insecure bool
	// Client sends the requests. Default: one with a copy of http.DefaultTransport that pings silent connections of
	// HTTP/2. Redirects are not followed.
	Client *http.Client
}

// Source is a source of tokens. It is safe for concurrent use.
type Source struct {
	cfg    Config
	client *http.Client

	mu      sync.Mutex
	token   string
	renewAt time.Time
	endsAt  time.Time
	running chan struct{} // closed when the request under way ends; nil when none is
	err     error         // of the last request
	retryAt time.Time
}

// New returns a Source. It sends nothing yet.
func New(cfg Config) (*Source, error) {
	u, err := url.Parse(cfg.TokenURL)
	if err != nil || u.Host == "" {
		return nil, errors.New("tokensource: Config.TokenURL is not an absolute URL")
	}
	local := u.Hostname() == "localhost" || net.ParseIP(u.Hostname()).IsLoopback()
	if u.Scheme != "https" && !(u.Scheme == "http" && (local || cfg.Insecure)) {
		return nil, errors.New("tokensource: Config.TokenURL: use https, or Config.Insecure")
	}
	if cfg.ClientID == "" || cfg.ClientSecret == "" {
		return nil, errors.New("tokensource: Config.ClientID and ClientSecret are required")
	}
	cfg.Timeout = cmp.Or(cfg.Timeout, 10*time.Second)
	cfg.RetryAfter = cmp.Or(cfg.RetryAfter, time.Second)
	client := http.Client{Transport: pinging()}
	if cfg.Client != nil {
		client = *cfg.Client
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Source{cfg: cfg, client: &client}, nil
}

// pinging returns a transport that drops a connection that has gone silent, and does not send each renewal over it.
func pinging() http.RoundTripper {
	def, ok := http.DefaultTransport.(*http.Transport)
	if !ok { // a program's own
		return http.DefaultTransport
	}
	own := def.Clone()
	own.HTTP2 = &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 5 * time.Second}
	return own
}

// Must returns s, or panics with err when it is not nil.
func Must(s *Source, err error) *Source {
	if err != nil {
		panic(err)
	}
	return s
}

// Token returns a token that has not ended. The error is a *RefusedError, matches ErrUnavailable, or is the cause of
// the end of ctx.
func (s *Source) Token(ctx context.Context) (string, error) {
	s.mu.Lock()
	now := time.Now()
	if s.running == nil && now.After(s.renewAt) && now.After(s.retryAt) {
		s.running = make(chan struct{})
		go s.renew(s.running) //nolint:gosec // it serves all waiting callers, and has a bound of its own
	}
	if s.token != "" && now.Before(s.endsAt) { // while it is renewed, too
		token := s.token
		s.mu.Unlock()
		return token, nil
	}
	running, err := s.running, s.err
	s.mu.Unlock()
	if running == nil {
		return "", err
	}
	select {
	case <-running:
	case <-ctx.Done():
		return "", fmt.Errorf("tokensource: wait for a token: %w", context.Cause(ctx))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return "", s.err
	}
	return s.token, nil
}

// renew makes one request, for all callers that wait.
func (s *Source) renew(done chan struct{}) {
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.Timeout)
	defer cancel()
	token, life, err := s.request(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if s.err = err; err != nil {
		s.retryAt = now.Add(s.cfg.RetryAfter)
	} else {
		s.token, s.renewAt, s.endsAt = token, now.Add(life*4/5), now.Add(life-min(life/10, 5*time.Second))
	}
	s.running = nil
	close(done)
}

// defaultLife is the life of a token whose answer names none.
const defaultLife = time.Minute

// maxAnswer bounds what is read of an answer.
const maxAnswer = 1 << 20

func (s *Source) request(ctx context.Context) (token string, life time.Duration, err error) {
	form := url.Values{}
	for name, values := range s.cfg.Parameters {
		form[name] = values
	}
	form.Set("grant_type", "client_credentials")
	if len(s.cfg.Scopes) > 0 {
		form.Set("scope", strings.Join(s.cfg.Scopes, " "))
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.cfg.TokenURL, strings.NewReader(form.Encode()))
	if err != nil {
		return "", 0, errors.New("tokensource: the request cannot be made")
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	req.SetBasicAuth(url.QueryEscape(s.cfg.ClientID), url.QueryEscape(s.cfg.ClientSecret)) // RFC 6749, section 2.3.1
	res, err := s.client.Do(req)
	if err != nil {
		return "", 0, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	var answer struct {
		Token     string      `json:"access_token"`
		Type      string      `json:"token_type"`
		ExpiresIn json.Number `json:"expires_in"`
		Code      string      `json:"error"`
	}
	unreadable := json.Unmarshal(data, &answer) != nil
	switch {
	case err != nil:
		return "", 0, fmt.Errorf("%w: read the answer: %w", ErrUnavailable, err)
	case res.StatusCode >= 500 || res.StatusCode == http.StatusTooManyRequests:
		return "", 0, fmt.Errorf("%w: status %d", ErrUnavailable, res.StatusCode)
	case res.StatusCode != http.StatusOK:
		return "", 0, &RefusedError{res.StatusCode, answer.Code[:min(len(answer.Code), 64)]}
	case unreadable || answer.Token == "" || answer.Type != "" && !strings.EqualFold(answer.Type, "Bearer"):
		return "", 0, errors.New("tokensource: the answer contains no bearer token")
	}
	life = defaultLife
	if seconds, err := answer.ExpiresIn.Int64(); err == nil && seconds > 0 {
		life = time.Duration(min(seconds, 365*24*3600)) * time.Second
	}
	return answer.Token, life, nil
}

// Transport returns a transport that sends a token of the source with each request that has no Authorization header.
// base carries the requests; nil means http.DefaultTransport.
func (s *Source) Transport(base http.RoundTripper) http.RoundTripper {
	if base == nil {
		base = http.DefaultTransport
	}
	return transport{s, base}
}

type transport struct {
	source *Source
	base   http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Header.Get("Authorization") != "" {
		return t.base.RoundTrip(r)
	}
	token, err := t.source.Token(r.Context())
	if err != nil {
		if r.Body != nil {
			_ = r.Body.Close()
		}
		return nil, err
	}
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+token)
	return t.base.RoundTrip(r)
}
