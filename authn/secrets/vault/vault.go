package vault

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/sillar-go/sillar/authn/secrets"
)

// Errors, to be compared with errors.Is. The error itself is an *Error.
var (
	// ErrNotFound is matched when there is no such secret, version or key. It is secrets.ErrNotFound.
	ErrNotFound = secrets.ErrNotFound
	// ErrDenied is matched when the login or the token's policies do not allow it.
	ErrDenied = errors.New("vault: denied")
	// ErrConflict is matched when a write's version is no longer the present one.
	ErrConflict = errors.New("vault: the secret has been changed by another")
	// ErrUnavailable is matched when the server cannot be reached, is sealed or asks to wait, and trying again did not
	// help.
	ErrUnavailable = errors.New("vault: unavailable")
)

// Error is what went wrong with a request.
type Error struct {
	// Op is what was being done.
	Op string
	// Status is the server's answer, 0 when there was none.
	Status int
	// Err is one of the sentinels, or nil.
	Err error
}

// Error implements error.
func (e *Error) Error() string {
	s := "vault: " + e.Op
	if e.Status != 0 {
		s += fmt.Sprintf(": status %d", e.Status)
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the sentinel.
func (e *Error) Unwrap() error { return e.Err }

// Config says where Vault is and how to log in.
type Config struct {
	// Address of the server. Default: the variable VAULT_ADDR.
	Address string
	// Auth is how to log in. Default: Token with the variable VAULT_TOKEN.
	Auth Auth
	// Namespace of the requests, for Vault Enterprise and HCP. Default: the variable VAULT_NAMESPACE, else none.
	Namespace string
	// Timeout bounds one try of a request. Default 10 s.
	Timeout time.Duration
	// Attempts bounds the tries of a request. Default 4. Negative: one.
	Attempts int
	// CacheFor is how long a read is remembered. Default 30 s. Negative: not at all.
	CacheFor time.Duration
	// Transport carries the requests. Default: a transport that verifies the server with the CAs of the system or of
	// VAULT_CACERT (a file) or VAULT_CACERT_BYTES (PEM), expects the name VAULT_TLS_SERVER_NAME where it is set, and
	// presents the certificate of VAULT_CLIENT_CERT and VAULT_CLIENT_KEY where they are set. New refuses
	// VAULT_SKIP_VERIFY and VAULT_CAPATH, which it does not follow.
	Transport http.RoundTripper
	// Logger logs that a token cannot be renewed, and that Watch cannot read. Default slog.Default().
	Logger *slog.Logger
}

// Client talks to a Vault. It is safe for concurrent use.
type Client struct {
	cfg  Config
	base *url.URL
	http *http.Client
	own  *http.Transport

	ctx   context.Context
	close context.CancelFunc
	wg    sync.WaitGroup

	turn    chan struct{} // held to use the next two
	lease   Lease
	expires time.Time
	news    chan Lease // the last lease, for the renewing goroutine

	mu    sync.Mutex
	cache map[string]cached
}

type cached struct {
	data *Data
	at   time.Time
}

var _ secrets.Source = (*Client)(nil)

// New returns a client. It sends nothing yet.
func New(cfg Config) (*Client, error) {
	if cfg.Address == "" {
		cfg.Address = os.Getenv("VAULT_ADDR")
	}
	base, err := url.Parse(cfg.Address)
	if err != nil || base.Host == "" || base.Scheme != "https" && base.Scheme != "http" {
		return nil, errors.New("vault: Config.Address, or VAULT_ADDR, must be an http or https URL")
	}
	if cfg.Auth == nil {
		token := os.Getenv("VAULT_TOKEN")
		if token == "" {
			return nil, errors.New("vault: Config.Auth, or VAULT_TOKEN, is required")
		}
		cfg.Auth = Token(token)
	}
	cfg.Namespace = cmp.Or(cfg.Namespace, os.Getenv("VAULT_NAMESPACE"))
	if cfg.Timeout <= 0 {
		cfg.Timeout = 10 * time.Second
	}
	cfg.Attempts = cmp.Or(cfg.Attempts, 4)
	cfg.CacheFor = cmp.Or(cfg.CacheFor, 30*time.Second)
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	c := &Client{cfg: cfg, base: base, turn: make(chan struct{}, 1), news: make(chan Lease, 1), cache: map[string]cached{}}
	if cfg.Transport == nil {
		tlsConfig, err := tlsFromEnvironment()
		if err != nil {
			return nil, err
		}
		c.own = &http.Transport{
			Proxy: http.ProxyFromEnvironment, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true, TLSClientConfig: tlsConfig,
			HTTP2: &http.HTTP2Config{
				SendPingTimeout: 15 * time.Second,
				PingTimeout:     5 * time.Second,
			}, // a dead connection is dropped
		}
		cfg.Transport = c.own
	}
	c.http = &http.Client{Transport: cfg.Transport, CheckRedirect: c.redirect}
	c.ctx, c.close = context.WithCancel(context.Background())
	c.wg.Go(c.keep)
	return c, nil
}

// Must returns c or panics with err.
func Must(c *Client, err error) *Client {
	if err != nil {
		panic(err)
	}
	return c
}

// Close stops renewing. The token lives until it expires.
func (c *Client) Close() error {
	c.close()
	c.wg.Wait()
	if c.own != nil {
		c.own.CloseIdleConnections()
	}
	return nil
}

// redirect follows a standby server to the active one, but not out of https: the token goes along.
func (c *Client) redirect(r *http.Request, via []*http.Request) error {
	if len(via) > 2 {
		return errors.New("too many redirects")
	}
	if c.base.Scheme == "https" && r.URL.Scheme != "https" {
		return errors.New("a redirect out of https")
	}
	return nil
}

// Check reports whether the client can log in.
func (c *Client) Check(ctx context.Context) error {
	_, err := c.token(ctx)
	return err
}

// Get implements secrets.Source. ref is vault://mount/path#key. The mount is the first part of the path; a mount with
// slashes is escaped: vault://team%2Fkv/path#key.
func (c *Client) Get(ctx context.Context, ref string) (secrets.Secret, error) {
	rest, ok := strings.CutPrefix(ref, "vault://")
	where, key, hasKey := strings.Cut(rest, "#")
	mount, path, hasPath := strings.Cut(where, "/")
	if !ok || !hasKey || !hasPath || key == "" {
		return secrets.Secret{}, fmt.Errorf("%w: it is not vault://mount/path#key", secrets.ErrReference)
	}
	mount, err := url.PathUnescape(mount)
	if err != nil {
		return secrets.Secret{}, fmt.Errorf("%w: the mount is not escaped as in a URL", secrets.ErrReference)
	}
	d, err := c.Read(ctx, mount, path)
	if err != nil {
		return secrets.Secret{}, err
	}
	v, ok := d.Get(key)
	if !ok {
		return secrets.Secret{}, &Error{Op: "read a key of a secret", Err: ErrNotFound}
	}
	return v, nil
}
