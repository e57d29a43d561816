package jwks

import (
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
	// MaxStale is for how long keys serve that could not be read again. Default: for ever. A limit trades an outage for
	// the use of a key that was withdrawn in the meantime.
	MaxStale time.Duration
	// Insecure allows http to hosts that are not loopback: who is on the way may then replace the keys.
	Insecure bool
	// Client sends the requests. Default one of its own, without a proxy's or cookie's state.
	Client *http.Client
	// Logger is told of failures. Default slog.Default().
	Logger *slog.Logger
}

// Set is an authn.Set. It is safe for concurrent use.
type Set struct {
	url   string
	shown string // url for logs
	cfg   Config
	own   *http.Transport // to be closed with the set, or nil
	ctx   context.Context // ends with Close
	close context.CancelFunc
	wg    sync.WaitGroup

	mu      sync.Mutex
	keys    []authn.VerifyKey
	readAt  time.Time     // when keys were read
	triedAt time.Time     // when the last request began
	running chan struct{} // closed when the request under way ends; nil when none is
	failed  bool          // the last request that ended
	toldAt  time.Time     // when the log was last told of a failure
}

var _ authn.Set = (*Set)(nil)

// New returns the set at a URL and begins to read it.
func New(rawURL string, cfg Config) (*Set, error) {
	u, err := url.Parse(rawURL)
	if err != nil || u.Host == "" {
		return nil, errors.New("jwks: not an absolute URL")
	}
	if err := allowed(u, cfg.Insecure); err != nil {
		return nil, err
	}
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&cfg.Refresh, 5*time.Minute)
	def(&cfg.MinInterval, 10*time.Second)
	def(&cfg.Timeout, 5*time.Second)
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	s := &Set{url: rawURL, shown: u.Redacted(), cfg: cfg}
	client := http.Client{}
	if cfg.Client != nil {
		client = *cfg.Client
	} else {
		s.own = &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConns: 1, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true}
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

// Close ends the refreshing. The keys that are there serve on.
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

// Key implements authn.Set.
func (s *Set) Key(ctx context.Context, id string) (authn.VerifyKey, error) {
	s.mu.Lock()
	k, ok, err := s.find(id)
	if ok {
		s.mu.Unlock()
		return k, nil
	}
	if s.running == nil && time.Since(s.triedAt) >= s.cfg.MinInterval {
		s.start()
	}
	running := s.running
	s.mu.Unlock()
	if running == nil {
		return authn.VerifyKey{}, err
	}
	select {
	case <-running:
	case <-ctx.Done():
		return authn.VerifyKey{}, fmt.Errorf("%w: wait for the key set: %w", authn.ErrUnavailable, context.Cause(ctx))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k, _, err = s.find(id)
	return k, err
}

// find looks among the keys that are there. s.mu must be held.
func (s *Set) find(id string) (k authn.VerifyKey, ok bool, err error) {
	if len(s.keys) == 0 || s.cfg.MaxStale > 0 && time.Since(s.readAt) > s.cfg.MaxStale {
		return authn.VerifyKey{}, false, fmt.Errorf("%w: the key set has not been read", authn.ErrUnavailable)
	}
	if id == "" && len(s.keys) == 1 {
		return s.keys[0], true, nil
	}
	for _, k := range s.keys {
		if k.ID == id && id != "" {
			return k, true, nil
		}
	}
	if s.failed { // there may be such a key by now
		return authn.VerifyKey{}, false, fmt.Errorf("%w: the key is not among the known ones, and the set cannot be read again", authn.ErrUnavailable)
	}
	return authn.VerifyKey{}, false, authn.ErrUnknownKey
}

// start begins a request that everybody may wait for. s.mu must be held.
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
		if s.failed = err != nil; !s.failed {
			s.keys, s.readAt = keys, time.Now()
		} else if s.ctx.Err() == nil && (s.toldAt.IsZero() || time.Since(s.toldAt) >= time.Minute) {
			s.toldAt = time.Now()
			s.cfg.Logger.Error("the key set could not be read", "url", s.shown, "error", err, "keys", len(s.keys))
		}
		s.running = nil
		close(done)
	})
}

// loop reads the set again when it is due, and sooner while the last try failed.
func (s *Set) loop() {
	for {
		s.mu.Lock()
		wait := s.cfg.MinInterval
		if s.readAt.After(s.triedAt) || s.readAt.Equal(s.triedAt) {
			wait = s.cfg.Refresh
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

func (s *Set) fetch() ([]authn.VerifyKey, error) {
	ctx, cancel := context.WithTimeout(s.ctx, s.cfg.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return nil, fmt.Errorf("jwks: %w", err)
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
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
		return nil, fmt.Errorf("jwks: the endpoint answers %d", res.StatusCode)
	case len(data) > maxDocument:
		return nil, fmt.Errorf("jwks: the answer is longer than %d bytes", maxDocument)
	}
	keys, err := authn.ParseJWKS(data)
	if err != nil {
		return nil, fmt.Errorf("jwks: %w", err)
	}
	if len(keys) == 0 {
		return nil, errors.New("jwks: the answer holds no usable key")
	}
	return keys, nil
}
