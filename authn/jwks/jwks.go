package jwks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/internal/backoff"
)

// maxDocument bounds the answer.
const maxDocument = 512 << 10

// Config tunes a Set. The zero Config is useful.
type Config struct {
	// Refresh is how often the set is read. Default 5 min. It must be shorter than the issuer's KeyConfig.PublishAhead.
	Refresh time.Duration
	// MinInterval is the least time between two requests. Default 10 s. Shorter learns of new keys sooner, and lets
	// tokens with invented key ids cause more requests.
	MinInterval time.Duration
	// Timeout bounds a request. Default 5 s.
	Timeout time.Duration
	// MaxStale is how long keys are used that could not be read again. Default: without end. A limit trades an outage
	// for the use of a key that was withdrawn in the meantime.
	MaxStale time.Duration
	// RSA is the algorithm of RSA keys that name none: RS256, RS384, RS512, PS256, PS384 or PS512. Default RS256.
	RSA authn.Algorithm
	// Insecure allows http to hosts that are not loopback. A man in the middle may then replace the keys.
	Insecure bool
	// Client sends the requests. Default: a client without cookies and with the proxy of the environment.
	Client *http.Client
	// Logger logs failures, at most one a minute. Default slog.Default().
	Logger *slog.Logger
}

// Set is an authn.KeySource. It is safe for concurrent use.
type Set struct {
	issuer string // whose metadata names the URL; empty for a fixed one
	url    string // of the set; guarded by the request under way
	shown  string // for logs
	cfg    Config
	own    *http.Transport // to be closed with the set, or nil
	ctx    context.Context // ends with Close
	close  context.CancelFunc
	wg     sync.WaitGroup

	mu       sync.Mutex
	keys     []authn.VerifyKey
	readAt   time.Time     // when keys were read
	triedAt  time.Time     // when the last request began
	running  chan struct{} // closed when the request under way ends; nil when none is
	failures int           // requests in a row that failed
	loggedAt time.Time     // when a failure was last logged
}

var _ authn.KeySource = (*Set)(nil)

// New returns the set at a URL and begins to read it.
func New(rawURL string, cfg Config) (*Set, error) {
	return open(rawURL, "", cfg)
}

// Discover returns the set of an issuer and begins to read it. The URL of the set is the jwks_uri in the metadata that
// the issuer publishes at /.well-known/openid-configuration (OpenID Connect Discovery) or
// /.well-known/oauth-authorization-server (RFC 8414). Metadata of another issuer are refused. They are read again when
// the set cannot be read.
func Discover(issuer string, cfg Config) (*Set, error) {
	return open(issuer, issuer, cfg)
}

// open starts a Set at a URL: of the set, or of the issuer.
func open(rawURL, issuer string, cfg Config) (*Set, error) {
	u, err := url.Parse(rawURL)
	if err != nil || u.Host == "" {
		return nil, errors.New("jwks: not an absolute URL")
	}
	if err := allowed(u, cfg.Insecure); err != nil {
		return nil, err
	}
	if issuer != "" {
		rawURL = ""
	}
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{{&cfg.Refresh, 5 * time.Minute}, {&cfg.MinInterval, 10 * time.Second}, {&cfg.Timeout, 5 * time.Second}} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	s := &Set{issuer: issuer, url: rawURL, shown: u.Redacted(), cfg: cfg}
	client := http.Client{}
	if cfg.Client != nil {
		client = *cfg.Client
	} else {
		s.own = &http.Transport{
			Proxy: http.ProxyFromEnvironment, MaxIdleConns: 1, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true,
			// a dead connection is dropped
			HTTP2: &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 5 * time.Second},
		}
		client.Transport = s.own
	}
	client.CheckRedirect = func(r *http.Request, via []*http.Request) error {
		if len(via) > 3 {
			return errors.New("too many redirects")
		}
		return allowed(r.URL, cfg.Insecure)
	}
	s.cfg.Client = &client
	s.ctx, s.close = context.WithCancel(context.Background())
	s.mu.Lock()
	s.start()
	s.mu.Unlock()
	s.wg.Go(s.loop)
	return s, nil
}

// Must returns s or panics with err.
func Must(s *Set, err error) *Set {
	if err != nil {
		panic(err)
	}
	return s
}

// Close stops refreshing. The keys that have been read remain in use.
func (s *Set) Close() error {
	s.mu.Lock() // start, which adds to wg, holds it too
	s.close()
	s.mu.Unlock()
	s.wg.Wait()
	if s.own != nil {
		s.own.CloseIdleConnections()
	}
	return nil
}

func allowed(u *url.URL, insecure bool) error {
	if u.Scheme == "https" || u.Scheme == "http" && (insecure || loopback(u.Hostname())) {
		return nil
	}
	return fmt.Errorf("jwks: %s to %s is not allowed: use https, or Config.Insecure", u.Scheme, u.Hostname())
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Ready returns nil when the set has been read, and an error that matches authn.ErrUnavailable before. It is meant for
// the readiness of a service, which cannot verify tokens until then. It stays nil while the endpoint is down later.
func (s *Set) Ready(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keys == nil {
		return fmt.Errorf("%w: the key set has not been read", authn.ErrUnavailable)
	}
	return nil
}

// Keys implements authn.KeySource. For a key that is not known it waits for a request for the set, at most one in each
// MinInterval.
func (s *Set) Keys(ctx context.Context, id string, alg authn.Algorithm) ([]authn.VerifyKey, error) {
	s.mu.Lock()
	found, err := s.find(id, alg)
	if err == nil {
		s.mu.Unlock()
		return found, nil
	}
	if s.running == nil && time.Since(s.triedAt) >= s.cfg.MinInterval {
		s.start()
	}
	running := s.running
	s.mu.Unlock()
	if running == nil {
		return nil, err
	}
	select {
	case <-running:
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: wait for the key set: %w", authn.ErrUnavailable, context.Cause(ctx))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.find(id, alg)
}

// find looks among the keys that have been read. s.mu must be held.
func (s *Set) find(id string, alg authn.Algorithm) ([]authn.VerifyKey, error) {
	if len(s.keys) == 0 || s.cfg.MaxStale > 0 && time.Since(s.readAt) > s.cfg.MaxStale {
		return nil, fmt.Errorf("%w: the key set has not been read", authn.ErrUnavailable)
	}
	if found := authn.FindKeys(s.keys, id, alg); len(found) > 0 {
		return found, nil
	}
	if s.failures > 0 { // the issuer may have published the key since
		return nil, fmt.Errorf(
			"%w: the key is not among the known ones, and the set cannot be read again",
			authn.ErrUnavailable,
		)
	}
	return nil, authn.ErrUnknownKey
}

// start begins a request that all callers may wait for. s.mu must be held.
func (s *Set) start() {
	if s.ctx.Err() != nil {
		return
	}
	done := make(chan struct{})
	s.running, s.triedAt = done, time.Now()
	s.wg.Go(func() {
		keys, err := s.fetch()
		s.mu.Lock()
		defer s.mu.Unlock()
		if err == nil {
			s.keys, s.readAt, s.failures = keys, time.Now(), 0
		} else if s.failures++; s.ctx.Err() == nil && (s.loggedAt.IsZero() || time.Since(s.loggedAt) >= time.Minute) {
			s.loggedAt = time.Now()
			s.cfg.Logger.Error("jwks: the key set could not be read", "url", s.shown, "error", err, "keys", len(s.keys))
		}
		s.running = nil
		close(done)
	})
}

// firstRetry is the pause until the next request while there are no keys at all, at most MinInterval: a service that
// starts beside its issuer should verify tokens soon after the issuer is up.
var firstRetry = backoff.Exponential(100*time.Millisecond, time.Minute)

// loop reads the set again when it is due, and sooner while the last try failed.
func (s *Set) loop() {
	for {
		s.mu.Lock()
		wait := s.cfg.MinInterval
		switch {
		case !s.readAt.Before(s.triedAt):
			wait = s.cfg.Refresh
		case s.keys == nil:
			wait = min(wait, firstRetry.Delay(max(s.failures, 1)))
		}
		due := time.Until(s.triedAt.Add(wait))
		running := s.running
		if running == nil && due <= 0 {
			s.start()
			running = s.running
		}
		s.mu.Unlock()
		if running != nil {
			select {
			case <-running:
				continue
			case <-s.ctx.Done():
				return
			}
		}
		t := time.NewTimer(max(due, time.Millisecond))
		select {
		case <-t.C:
		case <-s.ctx.Done():
			t.Stop()
			return
		}
	}
}

// fetch reads the set, for an issuer after its metadata. Only one fetch runs at a time.
func (s *Set) fetch() ([]authn.VerifyKey, error) {
	ctx, cancel := context.WithTimeout(s.ctx, s.cfg.Timeout)
	defer cancel()
	if s.url == "" {
		found, err := s.discover(ctx)
		if err != nil {
			return nil, err
		}
		s.url = found
	}
	data, err := s.get(ctx, s.url, "application/jwk-set+json, application/json")
	if err != nil {
		if s.issuer != "" {
			s.url = "" // it may have moved
		}
		return nil, err
	}
	keys, err := authn.ParseJWKS(data, s.cfg.RSA)
	if err != nil {
		return nil, fmt.Errorf("jwks: %w", err)
	}
	return keys, nil
}

// get returns the body of a document.
func (s *Set) get(ctx context.Context, from, accept string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, fmt.Errorf("jwks: %w", err)
	}
	req.Header.Set("Accept", accept)
	res, err := s.cfg.Client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("jwks: %w", err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(io.LimitReader(res.Body, maxDocument+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("jwks: read the answer: %w", err)
	case res.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("jwks: %s answers %d", req.URL.Redacted(), res.StatusCode)
	case len(data) > maxDocument:
		return nil, fmt.Errorf("jwks: the answer is longer than %d bytes", maxDocument)
	}
	return data, nil
}
