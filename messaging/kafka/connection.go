package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// dialTimeout is for one attempt to connect, the TLS handshake included.
const dialTimeout = 5 * time.Second

// target is what a URL names.
type target struct {
	seeds    []string
	user     string
	password string
	tls      bool
}

// parse reads kafka://user:password@host1:9092,host2:9092; kafkas:// is the same with TLS.
func parse(text string) (t target, err error) {
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok || scheme != "kafka" && scheme != "kafkas" {
		return t, ErrURL
	}
	t.tls = scheme == "kafkas"
	if i := strings.LastIndex(rest, "@"); i >= 0 {
		u, err := url.Parse("kafka://" + rest[:i+1] + "host")
		if err != nil || strings.Contains(rest[:i], "@") {
			return t, ErrURL
		}
		t.user = u.User.Username()
		t.password, _ = u.User.Password()
		rest = rest[i+1:]
	}
	for part := range strings.SplitSeq(strings.TrimSuffix(rest, "/"), ",") {
		u, err := url.Parse("kafka://" + strings.TrimSpace(part))
		if err != nil || u.Hostname() == "" || u.Path != "" || u.User != nil || u.RawQuery != "" {
			return t, ErrURL
		}
		port := u.Port()
		if port == "" {
			port = "9092"
		}
		t.seeds = append(t.seeds, net.JoinHostPort(u.Hostname(), port))
	}
	return t, nil
}

// mechanism returns how a user proves to be one, and nil without a user.
func mechanism(name, user, password string) (sasl.Mechanism, error) {
	if user == "" {
		return nil, nil
	}
	switch name {
	case "", ScramSHA512:
		return scram.Auth{User: user, Pass: password}.AsSha512Mechanism(), nil
	case ScramSHA256:
		return scram.Auth{User: user, Pass: password}.AsSha256Mechanism(), nil
	case Plain:
		return plain.Auth{User: user, Pass: password}.AsMechanism(), nil
	}
	return nil, fmt.Errorf("kafka: Config.Mechanism %q: want %s, %s or %s", name, ScramSHA512, ScramSHA256, Plain)
}

// connectionOptions returns the settings that all clients of a broker share.
func (b *Broker) connectionOptions(t target) ([]kgo.Opt, error) {
	opts := []kgo.Opt{
		kgo.SeedBrokers(t.seeds...), kgo.ClientID(b.cfg.Name), kgo.DialTimeout(dialTimeout),
		kgo.RetryBackoffFn(func(attempt int) time.Duration { return b.cfg.Reconnect.Delay(max(attempt, 1)) }),
		kgo.DisableClientMetrics(), // telemetry that a cluster may ask its clients for
		kgo.WithLogger(logger{b.cfg.Logger}), kgo.WithHooks(hooks{b}),
		// A connection may end before its first answer without a mistake in TLS or SASL.
		kgo.AlwaysRetryEOF(),
		// Leaders that moved are looked up no more often than this.
		kgo.MetadataMinAge(250 * time.Millisecond),
	}
	if t.tls || b.cfg.TLS != nil {
		c := &tls.Config{}
		if b.cfg.TLS != nil {
			c = b.cfg.TLS.Clone()
		}
		opts = append(opts, kgo.DialTLSConfig(c))
	}
	user, password := b.cfg.User, b.cfg.Password
	if user == "" {
		user, password = t.user, t.password
	}
	m, err := mechanism(b.cfg.Mechanism, user, password)
	if m != nil {
		opts = append(opts, kgo.SASL(m))
	}
	return opts, err
}

// hooks learn about connections from the client.
type hooks struct{ b *Broker }

var (
	_ kgo.HookBrokerConnect = hooks{}
	_ kgo.HookBrokerE2E     = hooks{}
)

// OnBrokerConnect implements kgo.HookBrokerConnect. An attempt that ended early, with the request that wanted it, says
// less than one before it.
func (h hooks) OnBrokerConnect(_ kgo.BrokerMetadata, took time.Duration, _ net.Conn, err error) {
	var timeout net.Error
	early := errors.Is(err, context.Canceled) || errors.As(err, &timeout) && timeout.Timeout() && took < dialTimeout
	if early && h.b.whyNot() != nil || err == nil && errors.Is(h.b.whyNot(), errNoAnswer) {
		return
	}
	if h.b.setWhy(err) && err != nil && !h.b.closed() {
		h.b.cfg.Logger.Warn("kafka: cannot connect", "error", err)
	}
}

// errNoAnswer is why a broker is not connected whose peer ends connections.
var errNoAnswer = errors.New("kafka: it ends connections in place of answers, as when it wants a user and a password")

// OnBrokerE2E implements kgo.HookBrokerE2E: a request that fails has lost its connection. The first one on a
// connection, which asks for versions, is answered without a password too.
func (h hooks) OnBrokerE2E(meta kgo.BrokerMetadata, key int16, e2e kgo.BrokerE2E) {
	if e2e.Err() == nil && kmsg.Key(key) != kmsg.ApiVersions && errors.Is(h.b.whyNot(), errNoAnswer) {
		h.b.setWhy(nil)
	}
	if err := e2e.Err(); err != nil && !h.b.closed() && !h.b.leaving() {
		if errors.Is(err, io.EOF) {
			h.b.setWhy(errNoAnswer)
		}
		h.b.meters.Lost(h.b.ctx)
		h.b.cfg.Logger.Warn("kafka: a connection was lost", "broker", meta.NodeID, "error", err)
	}
}

// setWhy notes why the last attempt to connect failed, nil when it did not. It reports whether that is news.
func (b *Broker) setWhy(err error) (news bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	news = fmt.Sprint(b.why) != fmt.Sprint(err)
	b.why = err
	return news
}

// whyNot returns why the last attempt to connect failed, nil when it did not.
func (b *Broker) whyNot() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.why
}

// reason adds to an error why the broker is not connected, where that is known.
func (b *Broker) reason(err error) error {
	why := b.whyNot()
	if why == nil {
		return err
	}
	return fmt.Errorf("%w (not connected: %w)", err, permission(why))
}

// logger takes what the client has to say: only its errors, as what it warns of is retried.
type logger struct{ to *slog.Logger }

// Level implements kgo.Logger.
func (l logger) Level() kgo.LogLevel { return kgo.LogLevelError }

// Log implements kgo.Logger.
func (l logger) Log(_ kgo.LogLevel, msg string, keyvals ...any) {
	l.to.Log(context.Background(), slog.LevelWarn, "kafka: client: "+msg, keyvals...)
}
