package breakerhttp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/sillar-go/sillar/breaker"
)

// Client calls one JSON service. It is safe for concurrent use.
type Client struct {
	base    *url.URL
	http    *http.Client
	tr      *Transport
	maxBody int64
}

// NewClient returns a client of the service at baseURL, such as "http://users:8000" or "https://example.com/api".
func NewClient(baseURL string, cfg Config) (*Client, error) {
	tr, err := NewTransport(nil, cfg)
	if err != nil {
		return nil, err
	}
	return NewClientOver(tr, baseURL)
}

// NewClientOver returns a client that shares a transport, and so breakers and connections, with others.
func NewClientOver(tr *Transport, baseURL string) (*Client, error) {
	base, err := url.Parse(baseURL)
	if err != nil {
		return nil, errors.New("breakerhttp: the base URL does not parse")
	}
	if base.Scheme != "http" && base.Scheme != "https" || base.Host == "" || base.RawQuery != "" || base.Fragment != "" {
		return nil, fmt.Errorf("breakerhttp: base URL %q: want http or https, a host, and no query", base.Redacted())
	}
	c := &Client{base: base, tr: tr, maxBody: tr.cfg.MaxBody}
	if c.maxBody == 0 {
		c.maxBody = 10 << 20
	}
	c.http = &http.Client{Transport: tr, CheckRedirect: sameHost}
	return c, nil
}

// Must returns v, or panics with err when it is not nil.
func Must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// sameHost follows redirects within the service: a service must not send our credentials elsewhere.
func sameHost(req *http.Request, via []*http.Request) error {
	if len(via) >= 5 || req.URL.Host != via[0].URL.Host || req.URL.Scheme != via[0].URL.Scheme {
		return http.ErrUseLastResponse
	}
	return nil
}

// Transport returns the transport, to look at its breakers.
func (c *Client) Transport() *Transport { return c.tr }

// CloseIdleConnections closes connections that no request uses.
func (c *Client) CloseIdleConnections() { c.http.CloseIdleConnections() }

// Option is a choice of one call.
type Option func(*call)

type call struct {
	header http.Header
	query  url.Values
}

// Header sets a header of the request.
func Header(key, value string) Option { return func(c *call) { c.header.Set(key, value) } }

// Query adds a parameter to the URL's query.
func Query(key, value string) Option { return func(c *call) { c.query.Add(key, value) } }

// IdempotencyKey names the operation, so that the service applies it once, and it may be retried.
func IdempotencyKey(key string) Option { return Header("Idempotency-Key", key) }

// Bearer sends a token.
func Bearer(token string) Option { return Header("Authorization", "Bearer "+token) }

// Get reads path into a T.
func Get[T any](ctx context.Context, c *Client, path string, opts ...Option) (T, error) {
	return into[T](ctx, c, http.MethodGet, path, nil, opts)
}

// Post sends body as JSON and reads the answer into a T. It is not retried without an IdempotencyKey.
func Post[T any](ctx context.Context, c *Client, path string, body any, opts ...Option) (T, error) {
	return into[T](ctx, c, http.MethodPost, path, body, opts)
}

// Put sends body as JSON and reads the answer into a T.
func Put[T any](ctx context.Context, c *Client, path string, body any, opts ...Option) (T, error) {
	return into[T](ctx, c, http.MethodPut, path, body, opts)
}

// Patch sends body as JSON and reads the answer into a T. It is not retried without an IdempotencyKey.
func Patch[T any](ctx context.Context, c *Client, path string, body any, opts ...Option) (T, error) {
	return into[T](ctx, c, http.MethodPatch, path, body, opts)
}

// Delete deletes path and reads the answer, if there is one, into a T; struct{} when it is not wanted.
func Delete[T any](ctx context.Context, c *Client, path string, opts ...Option) (T, error) {
	return into[T](ctx, c, http.MethodDelete, path, nil, opts)
}

// Do sends body, nil for none, as JSON and returns the answer whatever its status. The caller closes its body, of which
// no more than Config.MaxBody can be read. The caller bounds how long that takes.
func (c *Client) Do(ctx context.Context, method, path string, body any, opts ...Option) (*http.Response, error) {
	req, err := c.request(ctx, method, path, body, opts)
	if err != nil {
		return nil, err
	}
	res, err := c.http.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) { // its text has the query
			err = u.Err
		}
		return nil, unanswered(ctx, method, bare(req.URL), err)
	}
	if c.maxBody > 0 {
		res.Body = &bounded{res.Body, c.maxBody}
	}
	return res, nil
}

func (c *Client) request(ctx context.Context, method, path string, body any, opts []Option) (*http.Request, error) {
	u, err := c.join(path)
	if err != nil {
		return nil, err
	}
	k := call{header: http.Header{"Accept": {"application/json, application/problem+json"}}, query: url.Values{}}
	for _, o := range opts {
		o(&k)
	}
	u.RawQuery = k.query.Encode()
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("breakerhttp: encode the body of %s %s: %w", method, bare(u), err)
		}
		content = bytes.NewReader(text)
		if k.header.Get("Content-Type") == "" {
			k.header.Set("Content-Type", "application/json")
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), content)
	if err != nil {
		return nil, fmt.Errorf("breakerhttp: %s %s: %w", method, bare(u), err)
	}
	req.Header = k.header
	return req, nil
}

func into[T any](ctx context.Context, c *Client, method, path string, body any, opts []Option) (v T, err error) {
	reading, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	res, err := c.Do(reading, method, path, body, opts...)
	if err != nil {
		return v, err
	}
	defer drain(res)
	if c.tr.timeout > 0 {
		res.Body = newPatient(res.Body, c.tr.timeout, func() { cancel(breaker.ErrTimeout) })
	}
	at := bare(res.Request.URL)
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return v, &ResponseError{Method: method, URL: at, Status: res.StatusCode, Problem: problemOf(res)}
	}
	if _, nothing := any(v).(struct{}); nothing {
		return v, nil
	}
	text, err := io.ReadAll(res.Body)
	if errors.Is(err, ErrTooLarge) {
		return v, fmt.Errorf("%w: %s %s", ErrTooLarge, method, at)
	}
	if err != nil && ctx.Err() == nil && context.Cause(reading) != nil {
		err = fmt.Errorf("the answer's body stopped: %w", context.Cause(reading))
	}
	if err != nil {
		return v, unanswered(ctx, method, at, err)
	}
	if len(text) == 0 {
		return v, nil
	}
	if err := json.Unmarshal(text, &v); err != nil {
		var zero T
		return zero, fmt.Errorf("breakerhttp: decode the answer to %s %s: %w", method, at, err)
	}
	return v, nil
}

// unanswered says that the caller cancelled, if so: with a cause, as errgroup has, net/http tells the cause alone.
func unanswered(ctx context.Context, method, url string, err error) error {
	if ctx.Err() == context.Canceled && !errors.Is(err, context.Canceled) {
		err = fmt.Errorf("%w: %w", context.Canceled, err)
	}
	return &RequestError{Method: method, URL: url, Err: err}
}

// problemOf reads a problem document, if the body is one.
func problemOf(res *http.Response) *Problem {
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if kind != "application/problem+json" {
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	var p Problem
	if err != nil || json.Unmarshal(text, &p) != nil {
		return nil //nolint:nilerr // what cannot be read is no problem document
	}
	return &p
}

// bare is u without what logs should not hold.
func bare(u *url.URL) string {
	b := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}
	return b.String()
}

// patient bounds each read of a body.
type patient struct {
	io.ReadCloser
	wait  time.Duration
	timer *time.Timer
}

func newPatient(body io.ReadCloser, wait time.Duration, end func()) *patient {
	p := &patient{body, wait, time.AfterFunc(wait, end)}
	p.timer.Stop()
	return p
}

func (p *patient) Read(b []byte) (int, error) {
	p.timer.Reset(p.wait)
	defer p.timer.Stop()
	return p.ReadCloser.Read(b)
}

// bounded fails a read beyond the bound.
type bounded struct {
	io.ReadCloser
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, ErrTooLarge
	}
	if int64(len(p))-1 > b.left {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return n - 1, ErrTooLarge
	}
	return n, err
}

// Path joins segments to prefix, each escaped: an id with a slash in it stays one segment. An empty segment, "." and
// ".." make a path that every request refuses with ErrPath: a request must not delete "users/" instead of one user.
func Path(prefix string, segments ...string) string {
	var b strings.Builder
	b.WriteString(strings.Trim(prefix, "/"))
	for _, s := range segments {
		b.WriteByte('/')
		switch s {
		case "", ".", "..":
			b.WriteString("%(" + s + ")") // no escape: it cannot parse
		default:
			b.WriteString(url.PathEscape(s))
		}
	}
	return b.String()
}

// join puts path, which is escaped already, below the base URL.
func (c *Client) join(path string) (*url.URL, error) {
	raw := strings.TrimSuffix(c.base.EscapedPath(), "/") + "/" + strings.TrimPrefix(path, "/")
	plain, err := url.PathUnescape(raw)
	if err != nil || strings.ContainsAny(path, "?#\\") {
		return nil, fmt.Errorf("%w: %q", ErrPath, path)
	}
	for segment := range strings.SplitSeq(raw, "/") {
		s, _ := url.PathUnescape(segment)
		if s == "." || s == ".." || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return nil, fmt.Errorf("%w: %q", ErrPath, path)
		}
	}
	u := *c.base
	u.Path, u.RawPath = plain, raw
	return &u, nil
}
