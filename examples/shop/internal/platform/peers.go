package platform

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/sillar-go/sillar/breaker"
	"github.com/sillar-go/sillar/breaker/breakerhttp"
	"github.com/sillar-go/sillar/breaker/breakerotel"
	"github.com/sillar-go/sillar/observability/health"
)

// Peer is a client of another service: guarded by a breaker, traced, and with the service's own token.
type Peer struct {
	name   string
	client *breakerhttp.Client
	guard  *Guard
}

// BreakerConfig is that of calls to a peer.
func (s *Service) BreakerConfig(name string) (breaker.Config, error) {
	return breakerotel.Instrument(breaker.Config{Name: name, Timeout: 5 * time.Second, OpenFor: s.BreakerOpenFor,
		Retry: breaker.Retry{Attempts: 3, Backoff: breaker.Exponential(50*time.Millisecond, time.Second)},
		OnStateChange: func(c breaker.StateChange) {
			s.Log.Warn("breaker changed state", "breaker", c.Name, "from", c.From.String(), "to", c.To.String())
		}}, breakerotel.Config{MeterProvider: s.Tel.MeterProvider})
}

// Peer returns a client of the service at baseURL. An open breaker shows in /ready?verbose, and degrades nothing else.
func (s *Service) Peer(name, baseURL string) (*Peer, error) {
	cfg, err := s.BreakerConfig(name)
	if err != nil {
		return nil, err
	}
	base := s.transport()
	base.MaxIdleConnsPerHost = 64
	var below http.RoundTripper = base
	if s.WrapTransport != nil {
		below = s.WrapTransport(base)
	}
	traced := otelhttp.NewTransport(below, otelhttp.WithTracerProvider(s.Tel.TracerProvider),
		otelhttp.WithPropagators(s.Tel.Propagator),
		otelhttp.WithMeterProvider(noop.NewMeterProvider()))
	tr, err := breakerhttp.NewTransport(traced, breakerhttp.Config{Breaker: cfg, Propagator: s.Tel.Propagator})
	if err != nil {
		return nil, err
	}
	client, err := breakerhttp.NewClientOver(tr, baseURL)
	if err != nil {
		return nil, fmt.Errorf("%s: address of %s: %w", s.Name, name, err)
	}
	u, err := url.Parse(baseURL)
	if err != nil {
		return nil, err
	}
	s.Health.Add(name, func(context.Context) error {
		if b := tr.Breaker(u.Host); b.State() != breaker.Closed {
			return fmt.Errorf("the breaker is %s", b.State())
		}
		return nil
	}, health.Degraded())
	s.OnClose(name, func(context.Context) error { base.CloseIdleConnections(); return nil })
	return NewPeer(name, client, s.Guard), nil
}

// NewPeer returns a peer over a client of the caller's, such as one without a network.
func NewPeer(name string, client *breakerhttp.Client, guard *Guard) *Peer {
	return &Peer{name, client, guard}
}

// Name is the peer's.
func (p *Peer) Name() string { return p.name }

func (p *Peer) options(ctx context.Context, key string) ([]breakerhttp.Option, error) {
	token, err := p.guard.Token(ctx)
	if err != nil {
		return nil, err
	}
	opts := []breakerhttp.Option{breakerhttp.Bearer(token)}
	if key != "" {
		opts = append(opts, breakerhttp.IdempotencyKey(key))
	}
	return opts, nil
}

// Fetch reads a T.
func Fetch[T any](ctx context.Context, p *Peer, path string) (v T, err error) {
	opts, err := p.options(ctx, "")
	if err != nil {
		return v, err
	}
	return breakerhttp.Get[T](ctx, p.client, path, opts...)
}

// Send posts a body under an idempotency key, "" for none, and reads a T.
func Send[T any](ctx context.Context, p *Peer, path string, body any, key string) (v T, err error) {
	opts, err := p.options(ctx, key)
	if err != nil {
		return v, err
	}
	return breakerhttp.Post[T](ctx, p.client, path, body, opts...)
}

// Remove deletes under an idempotency key.
func Remove(ctx context.Context, p *Peer, path, key string) error {
	opts, err := p.options(ctx, key)
	if err != nil {
		return err
	}
	_, err = breakerhttp.Delete[struct{}](ctx, p.client, path, opts...)
	return err
}
