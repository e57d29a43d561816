// Package scenario plays what the shop can do against a running one, through its gateway and nothing else, and checks
// what must hold.
package scenario

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"golang.org/x/oauth2"
)

// client speaks to the gateway as somebody.
type client struct {
	base string
	http *http.Client
	// correlation is sent with every request.
	correlation string
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// into decodes the body.
func (a answer) into(v any) error {
	if err := json.Unmarshal(a.body, v); err != nil {
		return fmt.Errorf("status %d, body %.200s: %w", a.status, a.body, err)
	}
	return nil
}

func (a answer) field(name string) string {
	var m map[string]any
	_ = json.Unmarshal(a.body, &m)
	s, _ := m[name].(string)
	return s
}

func (c *client) do(ctx context.Context, method, path string, body any, header ...string) (answer, error) {
	var r io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return answer{}, err
		}
		r = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, r)
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Correlation-ID", c.correlation)
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := c.http.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	return answer{res.StatusCode, res.Header, raw}, err
}

// want is do that accepts one status only.
func (c *client) want(ctx context.Context, status int, method, path string, body any, header ...string) (answer, error) {
	a, err := c.do(ctx, method, path, body, header...)
	if err != nil {
		return a, fmt.Errorf("%s %s: %w", method, path, err)
	}
	if a.status != status {
		return a, fmt.Errorf("%s %s: status %d, want %d: %.300s", method, path, a.status, status, a.body)
	}
	return a, nil
}

// login signs in with a real OAuth2 client.
func login(ctx context.Context, base, name, password, correlation string) (*client, error) {
	ctx = context.WithValue(ctx, oauth2.HTTPClient, &http.Client{Timeout: 30 * time.Second, Transport: withCorrelation{correlation}})
	cfg := oauth2.Config{Endpoint: oauth2.Endpoint{TokenURL: base + "/users/token", AuthStyle: oauth2.AuthStyleInParams}}
	token, err := cfg.PasswordCredentialsToken(ctx, name, password)
	if err != nil {
		return nil, fmt.Errorf("sign in as %s: %w", name, err)
	}
	return &client{base, cfg.Client(ctx, token), correlation}, nil
}

type withCorrelation struct{ id string }

// RoundTrip implements http.RoundTripper.
func (w withCorrelation) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("X-Correlation-ID", w.id)
	return http.DefaultTransport.RoundTrip(r)
}

// until asks again and again until the answer is right.
func until[T any](ctx context.Context, what string, ask func() (T, bool, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
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
			return last, fmt.Errorf("%s: not within 30 s; last: %v %v", what, last, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
