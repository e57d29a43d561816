// Package shopclient calls a running shop through its gateway, as a signed-in user.
package shopclient

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"golang.org/x/oauth2"
)

// Client calls the gateway as one user.
type Client struct {
	base string
	http *http.Client
	// correlation is sent with every request.
	correlation string
}

// Anyone returns a client without a token. correlation is sent with every request.
func Anyone(base, correlation string) *Client {
	return &Client{base, &http.Client{Timeout: 30 * time.Second, Transport: transport}, correlation}
}

// Answer is what came back.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Into decodes the body.
func (a Answer) Into(v any) error {
	if err := json.Unmarshal(a.Body, v); err != nil {
		return fmt.Errorf("status %d, body %.200s: %w", a.Status, a.Body, err)
	}
	return nil
}

// Field returns a field of the body that holds text, or "".
func (a Answer) Field(name string) string {
	var m map[string]any
	_ = json.Unmarshal(a.Body, &m)
	s, _ := m[name].(string)
	return s
}

// Do sends body as JSON, with headers given as names and values.
func (c *Client) Do(ctx context.Context, method, path string, body any, header ...string) (Answer, error) {
	var r io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return Answer{}, err
		}
		r = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, r)
	if err != nil {
		return Answer{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Correlation-ID", c.correlation)
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := c.http.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	return Answer{res.StatusCode, res.Header, raw}, err
}

// Want is Do that accepts one status only.
func (c *Client) Want(ctx context.Context, status int, method, path string, body any,
	header ...string) (Answer, error) {
	a, err := c.Do(ctx, method, path, body, header...)
	if err != nil {
		return a, fmt.Errorf("%s %s: %w", method, path, err)
	}
	if a.Status != status {
		return a, fmt.Errorf("%s %s: status %d, want %d: %.300s", method, path, a.Status, status, a.Body)
	}
	return a, nil
}

// Login signs in with OAuth2.
func Login(ctx context.Context, base, name, password, correlation string) (*Client, error) {
	ctx = context.WithValue(ctx, oauth2.HTTPClient, &http.Client{Timeout: 30 * time.Second,
		Transport: withCorrelation{correlation}})
	cfg := oauth2.Config{Endpoint: oauth2.Endpoint{TokenURL: base + "/users/token", AuthStyle: oauth2.AuthStyleInParams}}
	token, err := cfg.PasswordCredentialsToken(ctx, name, password)
	if err != nil {
		return nil, fmt.Errorf("sign in as %s: %w", name, err)
	}
	return &Client{base, cfg.Client(ctx, token), correlation}, nil
}

// transport keeps as many connections as the commands use at a time: http.DefaultTransport keeps two.
var transport = func() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConns, t.MaxIdleConnsPerHost = 0, 256
	return t
}()

type withCorrelation struct{ id string }

// RoundTrip implements http.RoundTripper.
func (w withCorrelation) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Header.Get("X-Correlation-ID") == "" {
		r = r.Clone(r.Context())
		r.Header.Set("X-Correlation-ID", w.id)
	}
	return transport.RoundTrip(r)
}

// patience bounds what Until waits for: more than the 30 s for which a breaker between services stays open, and the
// retries after it.
const patience = 2 * time.Minute

// Until polls until the answer is as expected.
func Until[T any](ctx context.Context, what string, ask func() (T, bool, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var last T
	for {
		v, ok, err := ask()
		if ok && err == nil {
			return v, nil
		}
		last = v
		select {
		case <-ctx.Done():
			return last, errors.Join(fmt.Errorf("%s: not within %v; last: %v", what, patience, last), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
