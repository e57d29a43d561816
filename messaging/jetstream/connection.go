package jetstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/sillar-go/sillar/messaging"
)

const (
	dialTimeout = 5 * time.Second
	// pingEvery is how often a connection is checked; one that misses two answers is replaced.
	pingEvery = 10 * time.Second
	// reconnectBuffer holds acknowledgements while there is no connection. Publishing waits instead.
	reconnectBuffer = 1 << 20
	// ackTimeout is for the confirm of one publish: its leader may have died. It is then sent again.
	ackTimeout = 3 * time.Second
	// callTimeout is for one call of JetStream's API, which no server answers while there is no leader.
	callTimeout = 3 * time.Second
)

// parse returns the URLs of the servers that a URL names: nats://user:password@host1:4222,host2:4222, or several URLs.
func parse(text string) ([]string, error) {
	scheme, user := "", ""
	var out []string
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		if s, rest, ok := strings.Cut(part, "://"); ok {
			scheme, user = s, ""
			if i := strings.LastIndex(rest, "@"); i >= 0 {
				user = rest[:i+1]
			}
		} else {
			part = scheme + "://" + user + part
		}
		u, err := url.Parse(part)
		if err != nil || u.Hostname() == "" || u.Path != "" && u.Path != "/" {
			return nil, ErrURL
		}
		switch u.Scheme {
		case "nats", "tls", "ws", "wss":
		default:
			return nil, ErrURL
		}
		u.Path = ""
		if u.Port() == "" && (u.Scheme == "nats" || u.Scheme == "tls") {
			u.Host = net.JoinHostPort(u.Hostname(), "4222")
		}
		out = append(out, u.String())
	}
	return out, nil
}

// link is the connection, which the NATS client replaces whenever it breaks.
type link struct {
	b    *Broker
	made chan struct{} // closed when nc and js are there

	nc  *nats.Conn
	js  jetstream.JetStream
	err error // of making it, which is final

	mu      sync.Mutex
	up      bool
	why     error            // why it is not up
	denied  map[string]error // permissions that were missing of late, by subject
	changed chan struct{}
}

func newLink(b *Broker, servers []string) (*link, error) {
	l := &link{b: b, made: make(chan struct{}), changed: make(chan struct{})}
	opts := []nats.Option{
		nats.Name(b.cfg.Name), nats.Timeout(dialTimeout), nats.MaxReconnects(-1), nats.RetryOnFailedConnect(true),
		nats.IgnoreAuthErrorAbort(), nats.PingInterval(pingEvery), nats.MaxPingsOutstanding(2),
		nats.ReconnectBufSize(reconnectBuffer),
		nats.CustomReconnectDelay(func(attempts int) time.Duration { return b.cfg.Reconnect.Delay(attempts) }),
		nats.ConnectHandler(func(nc *nats.Conn) { l.set(true, nil) }),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			l.set(true, nil)
			b.cfg.Logger.Info("jetstream: connected again", "host", nc.ConnectedAddr())
			for _, s := range b.subscribed() {
				s.resume()
			}
		}),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if b.closed() || err == nil && !l.connected() {
				return
			}
			l.set(false, err)
			for _, s := range b.subscribed() {
				s.disconnected()
			}
			b.meters.Lost(b.ctx)
			b.cfg.Logger.Warn("jetstream: a connection was lost", "error", safe(err))
		}),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) {
			if l.set(false, err) {
				b.cfg.Logger.Warn("jetstream: cannot connect", "error", safe(err))
			}
		}),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			if b.closed() {
				return
			}
			if errors.Is(err, nats.ErrPermissionViolation) {
				l.deny(err)
			}
			b.cfg.Logger.Warn("jetstream: the server reports an error", "error", err)
		}),
	}
	if b.cfg.TLS != nil {
		opts = append(opts, nats.Secure(b.cfg.TLS))
	}
	if b.cfg.Credentials != "" {
		opts = append(opts, nats.UserCredentials(b.cfg.Credentials))
	}
	b.wg.Go(func() { // the first attempt waits for its end
		defer close(l.made)
		nc, err := nats.Connect(strings.Join(servers, ","), opts...)
		if err != nil {
			l.err = safe(err)
			b.cfg.Logger.Error("jetstream: unusable settings of the connection", "error", l.err)
			return
		}
		l.js, l.err = jetstream.New(nc, jetstream.WithPublishAsyncTimeout(ackTimeout),
			jetstream.WithPublishAsyncMaxPending(1<<20),
			jetstream.WithDefaultTimeout(callTimeout))
		l.nc = nc
		if why := nc.LastError(); why != nil && !nc.IsConnected() && l.set(false, why) {
			b.cfg.Logger.Warn("jetstream: cannot connect", "error", safe(why))
		}
	})
	return l, nil
}

// safe keeps URLs out of an error: those of nats.go's own have none, and net's have addresses only.
func safe(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// set notes whether the connection is up, and why not. It reports whether that is news.
func (l *link) set(up bool, why error) (news bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	news = l.up != up || fmt.Sprint(l.why) != fmt.Sprint(why)
	if l.up, l.why = up, why; news {
		close(l.changed)
		l.changed = make(chan struct{})
	}
	return news
}

// Subjects of JetStream's API, and of the answers to all that is asked, begin so.
const (
	apiPrefix   = "$JS."
	inboxPrefix = "_INBOX."
)

// maxDenied bounds the subjects that are remembered.
const maxDenied = 1000

// deny notes that a permission was missing. The server says for which subject in words only.
func (l *link) deny(err error) {
	_, rest, _ := strings.Cut(err.Error(), `"`)
	subject, _, _ := strings.Cut(rest, `"`)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.denied == nil || len(l.denied) >= maxDenied {
		l.denied = map[string]error{}
	}
	l.denied[subject] = err
}

// permission returns and forgets a permission that was missing for a subject, or for those that begin with apiPrefix.
func (l *link) permission(subject string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for s, err := range l.denied {
		if s == subject || strings.HasPrefix(s, inboxPrefix) || subject == apiPrefix && strings.HasPrefix(s, apiPrefix) {
			delete(l.denied, s)
			return err
		}
	}
	return nil
}

func (l *link) connected() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.up
}

// get waits for a live connection, unless the server refuses it permanently.
func (l *link) get(ctx context.Context) (jetstream.JetStream, error) {
	if l.b.closed() {
		return nil, messaging.ErrClosed
	}
	select {
	case <-l.made:
	case <-l.b.ctx.Done():
		return nil, messaging.ErrClosed
	case <-ctx.Done():
		return nil, notConnected(nil, ctx.Err())
	}
	if l.err != nil {
		return nil, fmt.Errorf("%w: %w", messaging.ErrBlocked, l.err)
	}
	for {
		l.mu.Lock()
		up, why, changed := l.up, l.why, l.changed
		l.mu.Unlock()
		switch {
		case up:
			return l.js, nil
		case refused(why):
			return nil, fmt.Errorf("%w: not connected: %w: %w", messaging.ErrBlocked, ErrPermission, why)
		}
		select {
		case <-changed:
		case <-l.b.ctx.Done():
			return nil, messaging.ErrClosed
		case <-ctx.Done():
			return nil, notConnected(safe(why), ctx.Err())
		}
	}
}

// refused reports whether the server refuses who connects.
func refused(why error) bool {
	return errors.Is(why, nats.ErrAuthorization) || errors.Is(why, nats.ErrAuthExpired) ||
		errors.Is(why, nats.ErrAuthRevoked)
}

func notConnected(why, err error) error {
	if why != nil {
		return fmt.Errorf("%w: not connected (%w): %w", messaging.ErrBlocked, why, err)
	}
	return fmt.Errorf("%w: not connected: %w", messaging.ErrBlocked, err)
}

// closeTimeout is for an orderly end.
const closeTimeout = 2 * time.Second

func (l *link) close() {
	<-l.made
	if l.nc == nil {
		return
	}
	if l.nc.IsConnected() {
		_ = l.nc.FlushTimeout(closeTimeout) // acknowledgements
	}
	l.nc.Close()
}
