package health

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// Phase is one step of going down.
type Phase struct {
	// Name of the phase, in logs and errors. Required.
	Name string
	// Stop does it, and returns when it is done or its context ends. Required.
	Stop func(ctx context.Context) error
	// Timeout bounds Stop. Default 5 s.
	Timeout time.Duration
}

// CloseConnections returns a handler that answers as next does, and once the service drains also with Connection:
// close: the client then sends its next request over another connection, to another instance. Without it a load
// balancer that balances connections keeps sending requests over those that it has, into a server that is about to
// close them. On HTTP/2 the connection ends with a GOAWAY, after the requests that are under way.
func (h *Health) CloseConnections(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h.Draining() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// Drain says how a service goes down. The zero Drain goes down at SIGTERM or SIGINT, without a delay, within 30 s.
type Drain struct {
	// Health becomes unready at the first signal. Nil: readiness does not change.
	Health *Health
	// Delay is how long the service goes on serving while unready, so that load balancers see it. Default none; in
	// Kubernetes, 5 s or more.
	Delay time.Duration
	// Grace is when the process would be killed, counted from the signal: Kubernetes'
	// terminationGracePeriodSeconds. Delay and the phases' bounds must fit in it. Default 30 s.
	Grace time.Duration
	// NoSignals makes the end of Run's context the only reason to go down: for programs of several services, of which
	// one Run with signals ends the others by their context.
	NoSignals bool
	// Logger logs each step. Default slog.Default().
	Logger *slog.Logger

	// signals and exit are replaced by tests.
	signals <-chan os.Signal
	exit    func(code int)
}

// defaultPhaseTimeout is how long a phase may take that does not say.
const defaultPhaseTimeout = 5 * time.Second

// ErrGrace is returned by Run, at once, when Delay and the phases' bounds do not fit in Grace.
var ErrGrace = errors.New("health: the phases do not fit in the grace period")

// Run waits for SIGTERM, SIGINT or the end of ctx. Then it makes the service unready, waits for Delay, and runs the
// phases in order; one that fails or exceeds its bound does not keep the next from running. It returns what failed,
// nil after an orderly end. A second signal ends the process at once with status 1.
//
// The phases' contexts do not end with ctx: what they stop may still need it.
func Run(ctx context.Context, d Drain, phases ...Phase) error {
	if d.Grace == 0 {
		d.Grace = 30 * time.Second
	}
	d.Logger = cmp.Or(d.Logger, slog.Default())
	if d.exit == nil {
		d.exit = os.Exit
	}
	if err := fits(&d, phases); err != nil {
		return err
	}
	if d.signals == nil && !d.NoSignals {
		c := make(chan os.Signal, 2)
		signal.Notify(c, syscall.SIGTERM, os.Interrupt)
		defer signal.Stop(c)
		d.signals = c
	}
	select {
	case s := <-d.signals:
		d.Logger.InfoContext(ctx, "going down", "signal", s.String())
	case <-ctx.Done():
		d.Logger.InfoContext(ctx, "going down", "cause", context.Cause(ctx))
	}
	if d.Health != nil {
		d.Health.Drain()
	}
	down := make(chan error, 1)
	go func() { down <- d.down(context.WithoutCancel(ctx), phases) }()
	select {
	case err := <-down:
		return err
	case s := <-d.signals:
		d.Logger.ErrorContext(ctx, "second signal, exiting at once", "signal", s.String())
		d.exit(1)
		return fmt.Errorf("health: ended by a second signal: %s", s)
	}
}

func fits(d *Drain, phases []Phase) error {
	total := d.Delay
	for i, p := range phases {
		if p.Name == "" || p.Stop == nil || p.Timeout < 0 {
			return fmt.Errorf("health: phase %d needs a Name, a Stop and no negative Timeout", i)
		}
		if p.Timeout == 0 {
			p.Timeout = defaultPhaseTimeout
		}
		total += p.Timeout
	}
	if total > d.Grace {
		return fmt.Errorf("%w: they may take %s of %s", ErrGrace, total, d.Grace)
	}
	return nil
}

func (d *Drain) down(ctx context.Context, phases []Phase) error {
	if d.Delay > 0 {
		time.Sleep(d.Delay)
	}
	var errs []error
	for _, p := range phases {
		if p.Timeout == 0 {
			p.Timeout = defaultPhaseTimeout
		}
		start := time.Now()
		if err := p.run(ctx); err != nil {
			errs = append(errs, fmt.Errorf("health: phase %s: %w", p.Name, err))
			d.Logger.ErrorContext(ctx, "phase failed", "phase", p.Name, "error", err, "took", time.Since(start))
			continue
		}
		d.Logger.InfoContext(ctx, "phase done", "phase", p.Name, "took", time.Since(start))
	}
	return errors.Join(errs...)
}

// run calls Stop and does not wait for it longer than its bound, whether or not it ends with its context.
func (p Phase) run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		defer func() {
			if v := recover(); v != nil {
				done <- fmt.Errorf("panic: %v", v)
			}
		}()
		done <- p.Stop(ctx)
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		select { // both may be ready: what Stop said counts
		case err := <-done:
			return err
		case <-time.After(p.Timeout / 20):
			return context.DeadlineExceeded
		}
	}
}
