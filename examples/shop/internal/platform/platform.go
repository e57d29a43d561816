// Package platform is the common base of the services of the shop: logs, metrics, traces, health, an API with
// problem+json errors, tokens, databases, clients of other services, and graceful shutdown.
//
// A service calls New, registers its API and its background work, and calls Run:
//
//	s, err := platform.New(ctx, platform.Config{Name: "orders", Addr: ":8002", ...})
//	huma.Register(s.API, platform.Op("POST", "/api/v1/orders", "Place an order", platform.SignedIn), place)
//	s.Go("relay", relay.Run)
//	err = s.Run(ctx)
package platform

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/sillar-go/sillar/gateway"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/observability"
	"github.com/sillar-go/sillar/observability/health"
	"github.com/sillar-go/sillar/observability/otlplog"
	"github.com/sillar-go/sillar/observability/service"
	"github.com/sillar-go/sillar/repository/sqldb"
	"github.com/sillar-go/sillar/saga"
)

// Config is what a service is started with.
type Config struct {
	// Name is the name of the service: users, products and so on.
	Name string
	// Version is the version of the program.
	Version string
	// Addr is where HTTP listens; GRPCAddr is where gRPC does, for services that have it.
	Addr, GRPCAddr string
	// TLSAddr is where HTTPS listens too, with the certificate of TLS. Empty: nowhere.
	TLSAddr string
	TLS     *tls.Config
	// ServiceTLS is mutual TLS between the services: at Addr, save that of the gateway, at GRPCAddr, and towards Peers.
	// The caller closes it. Default none: http.
	ServiceTLS *ServiceTLS
	// DB is the DSN of the service's own database.
	DB string
	// Data is a folder for what is kept in files. Empty: nothing is.
	Data string
	// Broker carries events. The caller closes it.
	Broker messaging.Broker
	// Peers are the other services' addresses.
	Peers Peers
	// Tokens says which tokens are accepted.
	Tokens Tokens
	// KeysSecret encrypts the signing keys of users in its database, where replicas share them: at least 32 bytes, the
	// same in all replicas. Empty: the keys are in Data, for one process.
	KeysSecret []byte
	// LogWriter takes the log, one JSON line a record. LogLevel is the least level.
	LogWriter io.Writer
	LogLevel  slog.Leveler
	// SpanExporters take the traces. None: no tracing.
	SpanExporters []sdktrace.SpanExporter
	// DrainDelay is how long a service goes on serving after it said that it is not ready.
	DrainDelay time.Duration
	// BreakerOpenFor is how long breakers around calls to other services stay open. 0 means 30 s.
	BreakerOpenFor time.Duration
	// Faults allows administrators to inject faults, for demonstrations.
	Faults bool
	// SMTP is where notifications are sent: smtp://user:password@host:port. Empty: they are kept, and not sent.
	SMTP string
	// NoAPI leaves out the frame's own API and its answer to unknown paths: for the gateway, which has no other than
	// those of the services.
	NoAPI bool
	// PublicEdge is for services that untrusted clients call: their trace headers are ignored.
	PublicEdge bool
	// Routes is a file of the gateway's routes, which is watched. Empty: those of the shop.
	Routes string
	// Users are made where they do not exist yet: name, password and role of each.
	Users []SeedUser
	// Network listens and connects. Default that of the machine.
	Network Network
	// Database tunes the service's SQL database. Its TracerProvider is the service's.
	Database sqldb.Config
	// WrapTransport wraps the transport of the clients of other services, below their breakers. Default none.
	WrapTransport func(http.RoundTripper) http.RoundTripper
	// OnSaga is called with every change of a saga, on the goroutine that runs it. Default none.
	OnSaga func(ctx context.Context, r saga.Record)
}

// SeedUser is a user to begin with.
type SeedUser struct {
	Username, Email, Password string
	Roles                     []string
}

// Peers are the addresses of the services, such as http://127.0.0.1:8000.
type Peers struct {
	Users, Products, Orders, Inventory, Payments, Notifications string
	// UsersGRPC is host:port.
	UsersGRPC string
}

// Service is the base of one service.
type Service struct {
	Config
	Tel    *observability.Telemetry
	Log    *slog.Logger
	Health *health.Health
	Mux    *observability.Mux
	API    huma.API
	Guard  *Guard
	// Fallback serves what has no pattern in Mux, when it is set, and names routes by itself.
	Fallback http.Handler

	logs        *otlplog.Logs
	listener    net.Listener
	tlsListener net.Listener // nil without TLS
	runners     []runner
	closers     []runner
	shutdowns   []func()
}

type runner struct {
	name string
	fn   func(context.Context) error
}

// New makes the frame and begins to listen, so that its address is known; nothing is served before Run.
func New(ctx context.Context, cfg Config) (*Service, error) {
	logs, err := otlplog.FromEnv(ctx, otlplog.Config{Service: cfg.Name, Version: cfg.Version, Level: cfg.LogLevel})
	if err != nil {
		return nil, err
	}
	tel, err := observability.New(ctx, observability.Config{Service: cfg.Name, Version: cfg.Version,
		LogWriter: cfg.LogWriter, LogLevel: cfg.LogLevel, LogHandlers: logs.Handlers(),
		SpanExporters: cfg.SpanExporters, PublicEdge: cfg.PublicEdge})
	if err != nil {
		return nil, err
	}
	h, err := health.New(health.Config{Service: cfg.Name})
	if err != nil {
		return nil, err
	}
	if cfg.ServiceTLS != nil || cfg.Network != nil {
		cfg.Tokens.transport = cfg.transport()
	}
	guard, err := NewGuard(cfg.Name, cfg.Tokens, tel.Logger, tel.MeterProvider)
	if err != nil {
		return nil, err
	}
	s := &Service{Config: cfg, Tel: tel, logs: logs, Log: tel.Logger, Health: h, Mux: tel.Mux(), Guard: guard}
	if err := s.listen(); err != nil {
		return nil, fmt.Errorf("%s: listen: %w (is another shop running? try --port-offset 1000)", cfg.Name, err)
	}
	h.Register(s.Mux)
	if guard.set != nil {
		h.Add("keys", guard.set.Ready)
	}
	s.Mux.Handle("GET /metrics", tel.MetricsHandler())
	if cfg.Broker != nil {
		h.Add("broker", cfg.Broker.Health, health.Degraded())
	}
	if !cfg.NoAPI {
		s.Mux.HandleFunc("/", notFound)
		s.API = newAPI(s, humago.New(s.Mux, apiConfig(cfg.Name, cfg.Version)))
		s.Mux.HandleFunc("GET /docs", docs)
	}
	s.OnClose("tokens", func(context.Context) error { return guard.Close() })
	return s, nil
}

func (s *Service) listen() (err error) {
	if s.listener, err = s.Listen(s.Addr); err != nil || s.TLSAddr == "" {
		return err
	}
	if s.tlsListener, err = s.Listen(s.TLSAddr); err != nil {
		return errors.Join(err, s.listener.Close())
	}
	return nil
}

// Make makes a frame and lets build hang everything into it. When build fails the frame is given back.
func Make(ctx context.Context, cfg Config, build func(ctx context.Context, s *Service) error) (*Service, error) {
	s, err := New(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if err := build(ctx, s); err != nil {
		s.Abandon(ctx)
		return nil, err
	}
	return s, nil
}

// URL is the address of the service's own listener, as this machine reaches it.
func (s *Service) URL() string {
	if s.inner() {
		return "https://" + reachable(s.listener.Addr())
	}
	return "http://" + reachable(s.listener.Addr())
}

// inner reports whether Addr is for other services alone, with TLS. The gateway's is for clients.
func (s *Service) inner() bool { return s.ServiceTLS != nil && !s.PublicEdge }

// TLSURL is the address with TLS, "" without.
func (s *Service) TLSURL() string {
	if s.tlsListener == nil {
		return ""
	}
	return "https://" + reachable(s.tlsListener.Addr())
}

func reachable(addr net.Addr) string {
	if tcp, ok := addr.(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		addr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: tcp.Port}
	}
	return addr.String()
}

// Go runs background work until its context ends. An error stops the service.
func (s *Service) Go(name string, run func(ctx context.Context) error) {
	s.runners = append(s.runners, runner{name, run})
}

// OnClose registers a function to run after all other work has ended, in reverse order.
func (s *Service) OnClose(name string, fn func(ctx context.Context) error) {
	s.closers = append(s.closers, runner{name, fn})
}

// OnShutdown registers fn to run when the listeners close, before the service waits for requests: it ends streams,
// which do not end by themselves.
func (s *Service) OnShutdown(fn func()) { s.shutdowns = append(s.shutdowns, fn) }

// The bounds of going down.
const (
	requestTimeout = 8 * time.Second
	loopTimeout    = 8 * time.Second
	closeTimeout   = 4 * time.Second // of each of the resources and the telemetry

	// MaxDrain is how long a service may take to go down, beside Config.DrainDelay.
	MaxDrain = requestTimeout + loopTimeout + 2*closeTimeout
)

// Run serves until ctx ends, and then goes down in order: not ready, requests finished, background work drained,
// databases closed, telemetry flushed.
func (s *Service) Run(ctx context.Context) error {
	r, err := service.New(service.Config{Name: s.Name, Health: s.Health, DrainDelay: s.DrainDelay,
		RequestTimeout: requestTimeout,
		LoopTimeout:    loopTimeout, CloseTimeout: closeTimeout, NoSignals: true, Logger: s.Log})
	if err != nil {
		return err
	}
	r.Close("telemetry", s.endTelemetry)
	r.Close("resources", s.close)
	for _, l := range s.runners {
		r.Go(l.name, l.fn)
	}
	if s.inner() {
		s.serve(r, s.listener, s.ServiceTLS.probed.Server())
	} else {
		s.serve(r, s.listener, nil)
	}
	if s.tlsListener != nil {
		s.serve(r, s.tlsListener, s.TLS)
	}
	s.Log.InfoContext(ctx, "service started", "address", s.URL(), "tls", s.TLSURL())
	return r.Run(ctx)
}

// serve serves the API on a listener.
func (s *Service) serve(r *service.Service, l net.Listener, with *tls.Config) {
	handler := s.handler()
	if s.inner() {
		handler = certified(handler)
	}
	server := gateway.NewServer("", s.Health.CloseConnections(s.Tel.Middleware(handler)))
	server.ErrorLog = slog.NewLogLogger(s.Log.Handler(), slog.LevelWarn)
	for _, fn := range s.shutdowns {
		server.RegisterOnShutdown(fn)
	}
	run := func() error { return server.Serve(l) }
	if with != nil {
		server.TLSConfig = with
		run = func() error { return server.ServeTLS(l, "", "") }
	}
	r.Serve("http "+l.Addr().String(), run, server.Shutdown)
}

func (s *Service) handler() http.Handler {
	if s.Fallback == nil {
		return s.Mux
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, pattern := s.Mux.Handler(r); pattern != "" {
			s.Mux.ServeHTTP(w, r)
			return
		}
		s.Fallback.ServeHTTP(w, r)
	})
}

func (s *Service) close(ctx context.Context) error {
	var errs []error
	for i := len(s.closers) - 1; i >= 0; i-- {
		if err := s.closers[i].fn(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: close %s: %w", s.Name, s.closers[i].name, err))
		}
	}
	return errors.Join(errs...)
}

// Abandon releases the resources of a service that will not run.
func (s *Service) Abandon(ctx context.Context) {
	_ = s.listener.Close()
	if s.tlsListener != nil {
		_ = s.tlsListener.Close()
	}
	_ = s.close(ctx)
	_ = s.endTelemetry(ctx)
}

// endTelemetry sends the last spans and log records.
func (s *Service) endTelemetry(ctx context.Context) error {
	return errors.Join(s.Tel.Shutdown(ctx), s.logs.Shutdown(ctx))
}
