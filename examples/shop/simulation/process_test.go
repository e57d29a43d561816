package simulation_test

import (
	"context"
	"database/sql/driver"
	"hash/fnv"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/sillar-go/sillar/breaker/breakertest"
	"github.com/sillar-go/sillar/examples/shop/internal/platform"
	"github.com/sillar-go/sillar/examples/shop/inventory"
	"github.com/sillar-go/sillar/examples/shop/notifications"
	"github.com/sillar-go/sillar/examples/shop/orders"
	"github.com/sillar-go/sillar/examples/shop/payments"
	"github.com/sillar-go/sillar/examples/shop/products"
	"github.com/sillar-go/sillar/examples/shop/users"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/messagingtest"
	"github.com/sillar-go/sillar/repository/sqldb"
	"github.com/sillar-go/sillar/repository/sqldb/sqldbtest"
)

var services = map[string]func(context.Context, platform.Config) (*platform.Service, error){
	"users": users.New, "inventory": inventory.New, "products": products.New, "payments": payments.New,
	"notifications": notifications.New, "orders": orders.New,
}

// process is a service from its start to its end or its crash.
type process struct {
	w    *world
	name string
	host *host
	link *link
	ctx  context.Context
	stop context.CancelFunc
	once sync.Once
	dead chan struct{}
}

// start makes the n-th process of a service.
func (w *world) start(name string, n int) *process {
	p := &process{w: w, name: name, host: w.net.host(name), link: &link{Broker: w.broker, bug: w.Bug},
		dead: make(chan struct{})}
	p.ctx, p.stop = context.WithCancel(context.Background())
	w.wg.Go(func() {
		defer p.crash()
		s, err := services[name](p.ctx, w.config(p, n))
		if err != nil {
			w.logf("%s: start: %v", name, err)
			return
		}
		if err := s.Run(p.ctx); err != nil {
			w.logf("%s: run: %v", name, err)
		}
	})
	return p
}

func (w *world) config(p *process, n int) platform.Config {
	h := fnv.New64a()
	_, _ = io.WriteString(h, p.name)
	seed := w.Seed + h.Sum64() + uint64(n)<<32
	cfg := platform.Config{
		Name: p.name, Version: "test", Addr: p.name + ":80", Network: p.host, DB: "sqlite::memory:",
		Broker:    messagingtest.Faulty(p.link, seed, w.Rates.Broker),
		LogWriter: w.log,
		Tokens: platform.Tokens{JWKS: "http://users:80/.well-known/jwks.json", Insecure: true,
			Secret: []byte("0123456789abcdef0123456789abcdef")},
		KeysSecret: []byte("fedcba9876543210fedcba9876543210"),
		Peers: platform.Peers{Users: "http://users:80", Products: "http://products:80", Orders: "http://orders:80",
			Inventory: "http://inventory:80", Payments: "http://payments:80", Notifications: "http://notifications:80",
			UsersGRPC: "users:50051"},
		Database: sqldb.Config{WrapConnector: func(c driver.Connector) driver.Connector {
			return sqldbtest.Faulty(w.disks[p.name].connector(c, p), seed, w.Rates.Database)
		}},
		WrapTransport: func(base http.RoundTripper) http.RoundTripper {
			return breakertest.Lossy(base, seed, w.Rates.HTTP)
		},
	}
	if p.name == "users" {
		cfg.GRPCAddr = "users:50051"
	}
	if p.name == "users" && w.signedIn() == "" {
		cfg.Users = []platform.SeedUser{{Username: "ana", Email: "ana@example.com", Password: password,
			Roles: []string{"customer"}}}
	}
	return cfg
}

// crash takes everything from the process at once, without a word. What still runs of it reaches nothing.
func (p *process) crash() {
	p.once.Do(func() {
		close(p.dead)
		p.host.crash()
		p.w.disks[p.name].detach()
		p.link.crash()
		p.stop()
	})
}

func (p *process) crashed() bool {
	select {
	case <-p.dead:
		return true
	default:
		return false
	}
}

// supervise keeps a service running until ctx ends, and then shuts it down.
func (w *world) supervise(ctx context.Context, name string) {
	for n := 0; ; n++ {
		p := w.start(name, n)
		w.mu.Lock()
		w.running[name] = p
		w.mu.Unlock()
		select {
		case <-p.dead:
		case <-ctx.Done():
			p.stop()
			<-p.dead
			return
		}
		w.mu.Lock()
		down := w.down[name]
		delete(w.down, name)
		w.mu.Unlock()
		_ = sleep(ctx, max(down, time.Second))
	}
}

// crashFor crashes a service and keeps it down for a time.
func (w *world) crashFor(name string, down time.Duration) {
	w.mu.Lock()
	w.down[name] = down
	p := w.running[name]
	w.mu.Unlock()
	w.logf("%s crashes for %s", name, down)
	p.crash()
}

// link is the connection of a process to the broker.
type link struct {
	messaging.Broker
	bug bug

	mu      sync.Mutex
	down    bool
	streams []messaging.Stream
}

// Features implements messaging.Featured.
func (l *link) Features() messaging.Features { return messaging.FeaturesOf(l.Broker) }

func (l *link) crash() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = true
	for _, s := range l.streams {
		_ = s.Close()
	}
}

func (l *link) closed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.down
}

func (l *link) Publish(ctx context.Context, topic string, payload any, opts ...messaging.Option) error {
	if l.closed() {
		return messaging.ErrClosed
	}
	return l.Broker.Publish(ctx, topic, payload, opts...)
}

func (l *link) PublishBatch(ctx context.Context, events []messaging.Envelope) error {
	if l.closed() {
		return messaging.ErrClosed
	}
	return l.Broker.PublishBatch(ctx, events)
}

func (l *link) Subscribe(ctx context.Context, sub messaging.Subscription) (messaging.Stream, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down {
		return nil, messaging.ErrClosed
	}
	s, err := l.Broker.Subscribe(ctx, sub)
	if err != nil {
		return nil, err
	}
	l.streams = append(l.streams, s)
	return buggyStream{s, l.bug}, nil
}

// Close leaves the broker to the other processes.
func (l *link) Close() error { return nil }

type buggyStream struct {
	messaging.Stream
	bug bug
}

// Receive implements messaging.Stream.
func (s buggyStream) Receive(ctx context.Context) (messaging.Delivery, error) {
	d, err := s.Stream.Receive(ctx)
	if err != nil {
		return nil, err
	}
	return s.bug.delivery(ctx, d)
}
