// Package service runs a service: its servers and its loops side by side, and takes them down in order. It needs the
// standard library and package health only.
//
//	s, err := service.New(service.Config{Name: "orders", DrainDelay: 5 * time.Second})
//	s.Close("telemetry", tel.Shutdown)                               // what is registered first is closed last
//	s.Close("database", func(context.Context) error { return db.Close() })
//	s.HTTP(listener, &http.Server{Handler: mux})
//	s.GRPC(grpcListener, grpcServer)
//	s.Go("relay", relay.Run)
//	s.Go("sagas", orchestrator.Run)
//	err = s.Run(ctx)
//
// # Guarantees
//
//   - Run returns when ctx ends, at SIGTERM or SIGINT, or when a server or a loop ends before that, with its error. A
//     loop that panics ends the service in order, too.
//   - The service goes down in order: unready, DrainDelay, requests finished, loops ended, resources closed. Each phase
//     has a bound, and one that fails does not keep the next from running.
//   - While it drains, answers over HTTP carry Connection: close, so that clients go to other instances; see
//     health.Health.CloseConnections.
//
// # What it does not do
//
// It restarts nothing: a service that cannot go on ends, and what runs it starts another one. It has no dependency
// injection and reads no configuration.
package service

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"github.com/sillar-go/sillar/observability/health"
)

// Errors of this package, to be compared with errors.Is.
var (
	// ErrEnded says that a loop has returned nil before the service went down.
	ErrEnded = errors.New("service: ended before the service")
	// ErrPanic says that a loop panicked.
	ErrPanic = errors.New("service: panicked")
)

// Config tunes a Service. The zero Config is useful.
type Config struct {
	// Name begins errors and is in the log. Default "service".
	Name string
	// Health becomes unready when the service goes down. Default a Health of its own, without checks.
	Health *health.Health
	// DrainDelay is how long the service serves on while it is unready, so that load balancers notice: longer than the
	// interval of their checks. Default none.
	DrainDelay time.Duration
	// RequestTimeout bounds how long requests may go on then, LoopTimeout the end of loops, and CloseTimeout each
	// resource. Default 10 s, 10 s and 5 s. Negative means no time: what is under way is cut off.
	RequestTimeout, LoopTimeout, CloseTimeout time.Duration
	// Grace is how long after the signal the process is killed. The bounds must fit in it. Default what they need, at
	// least 30 s.
	Grace time.Duration
	// NoSignals leaves signals alone: for programs of several services.
	NoSignals bool
	// Logger gets starts, ends and failures. Default slog.Default.
	Logger *slog.Logger
}

// Service is what Run runs. Register everything before Run.
type Service struct {
	cfg     Config
	servers []server
	loops   []loop
	closers []loop
}

type server struct {
	name     string
	serve    func() error
	shutdown func(ctx context.Context) error
}

type loop struct {
	name string
	run  func(ctx context.Context) error
}

// New returns a service without servers and loops.
func New(cfg Config) (*Service, error) {
	cfg.Name = cmp.Or(cfg.Name, "service")
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	cfg.RequestTimeout = max(cmp.Or(cfg.RequestTimeout, 10*time.Second), time.Millisecond)
	cfg.LoopTimeout = max(cmp.Or(cfg.LoopTimeout, 10*time.Second), time.Millisecond)
	cfg.CloseTimeout = max(cmp.Or(cfg.CloseTimeout, 5*time.Second), time.Millisecond)
	if cfg.DrainDelay < 0 || cfg.Grace < 0 {
		return nil, errors.New("service: DrainDelay and Grace cannot be negative")
	}
	if cfg.Health == nil {
		h, err := health.New(health.Config{Service: cfg.Name})
		if err != nil {
			return nil, err
		}
		cfg.Health = h
	}
	return &Service{cfg: cfg}, nil
}

// Must returns v or panics with err.
func Must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Health returns the health of the service: register its handlers, and add checks.
func (s *Service) Health() *health.Health { return s.cfg.Health }

// Serve runs a server: serve blocks until shutdown, which waits for requests until its context ends. An error of serve
// that comes before ends the service.
func (s *Service) Serve(name string, serve func() error, shutdown func(ctx context.Context) error) {
	s.servers = append(s.servers, server{name, serve, shutdown})
}

// HTTP serves srv on l, with TLS where srv has a TLSConfig.
func (s *Service) HTTP(l net.Listener, srv *http.Server) {
	handler := srv.Handler
	if handler == nil {
		handler = http.DefaultServeMux
	}
	srv.Handler = s.cfg.Health.CloseConnections(handler)
	serve := func() error { return srv.Serve(l) }
	if srv.TLSConfig != nil {
		serve = func() error { return srv.ServeTLS(l, "", "") }
	}
	s.Serve("http "+l.Addr().String(), serve, func(ctx context.Context) error {
		err := srv.Shutdown(ctx)
		if err != nil { // what is left is cut off
			err = errors.Join(err, srv.Close())
		}
		return err
	})
}

// GRPCServer is what GRPC needs of a *grpc.Server.
type GRPCServer interface {
	Serve(l net.Listener) error
	GracefulStop()
	Stop()
}

// GRPC serves srv on l.
func (s *Service) GRPC(l net.Listener, srv GRPCServer) {
	s.Serve("grpc "+l.Addr().String(), func() error { return srv.Serve(l) }, func(ctx context.Context) error {
		done := make(chan struct{})
		go func() { defer close(done); srv.GracefulStop() }()
		select {
		case <-done:
			return nil
		case <-ctx.Done():
			srv.Stop() // ends GracefulStop, too
			<-done
			return context.Cause(ctx)
		}
	})
}

// Go runs a loop, such as that of a router, a relay or an orchestrator, until its context ends, which is after all
// requests have ended. A loop that returns or panics before ends the service.
func (s *Service) Go(name string, run func(ctx context.Context) error) {
	s.loops = append(s.loops, loop{name, run})
}

// Close closes a resource after all loops have ended. What is registered last is closed first.
func (s *Service) Close(name string, fn func(ctx context.Context) error) {
	s.closers = append(s.closers, loop{name, fn})
}

// Run runs everything that was registered, and returns when it has ended: nil after an orderly end.
func (s *Service) Run(ctx context.Context) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	var failed failures
	fail := func(err error) {
		failed.add(err)
		end()
	}
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()

	var loops, servers sync.WaitGroup
	goingDown := func() bool { return ctx.Err() != nil || s.cfg.Health.Draining() }
	for _, l := range s.loops {
		loops.Go(func() {
			if err := s.guard(work, l, goingDown); err != nil {
				fail(err)
			}
		})
	}
	for _, srv := range s.servers {
		servers.Go(func() {
			err := srv.serve()
			if !goingDown() && !errors.Is(err, http.ErrServerClosed) {
				s.cfg.Logger.ErrorContext(ctx, "service: a server ended", "service", s.cfg.Name, "server", srv.name, "error", err)
				fail(fmt.Errorf("%s: %s: %w", s.cfg.Name, srv.name, cmp.Or(err, ErrEnded)))
			}
		})
	}
	s.cfg.Logger.InfoContext(ctx, "service: started", "service", s.cfg.Name)
	phases := []health.Phase{
		{Name: "requests", Timeout: s.cfg.RequestTimeout, Stop: s.shutdown},
		{Name: "loops", Timeout: s.cfg.LoopTimeout, Stop: func(ctx context.Context) error {
			stopWork()
			return wait(ctx, &loops)
		}},
	}
	need := s.cfg.DrainDelay + s.cfg.RequestTimeout + s.cfg.LoopTimeout
	for i := len(s.closers) - 1; i >= 0; i-- {
		c := s.closers[i]
		phases = append(phases, health.Phase{Name: c.name, Timeout: s.cfg.CloseTimeout, Stop: c.run})
		need += s.cfg.CloseTimeout
	}
	err := health.Run(ctx, health.Drain{
		Health: s.cfg.Health, Delay: s.cfg.DrainDelay, Grace: cmp.Or(s.cfg.Grace, max(need, 30*time.Second)),
		NoSignals: s.cfg.NoSignals, Logger: s.cfg.Logger,
	}, phases...)
	return errors.Join(failed.join(), err)
}

// failures are the errors of servers and loops.
type failures struct {
	mu   sync.Mutex
	list []error
}

func (f *failures) add(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = append(f.list, err)
}

func (f *failures) join() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return errors.Join(f.list...)
}

// guard runs a loop and returns an error where it fails, or ends before the service goes down.
func (s *Service) guard(ctx context.Context, l loop, goingDown func() bool) (err error) {
	returned := false
	defer func() {
		if p := recover(); !returned {
			err = fmt.Errorf("%s: %s: %w: %v", s.cfg.Name, l.name, ErrPanic, p)
			s.cfg.Logger.ErrorContext(ctx, "service: a loop panicked", "service", s.cfg.Name, "loop", l.name, "panic", p,
				"stack", string(debug.Stack()))
		}
	}()
	err = l.run(ctx)
	returned = true
	early := !goingDown()
	if err == nil && !early {
		return nil
	}
	if err = cmp.Or(err, ErrEnded); early {
		s.cfg.Logger.ErrorContext(ctx, "service: a loop ended", "service", s.cfg.Name, "loop", l.name, "error", err)
	}
	return fmt.Errorf("%s: %s: %w", s.cfg.Name, l.name, err)
}

// shutdown shuts all servers down at once and waits for their requests.
func (s *Service) shutdown(ctx context.Context) error {
	errs := make([]error, len(s.servers))
	var all sync.WaitGroup
	for i, srv := range s.servers {
		all.Go(func() {
			if err := srv.shutdown(ctx); err != nil {
				errs[i] = fmt.Errorf("%s: %w", srv.name, err)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

func wait(ctx context.Context, all *sync.WaitGroup) error {
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("loops ignore that their context has ended: %w", context.Cause(ctx))
	}
}
