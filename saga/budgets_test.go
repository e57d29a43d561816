package saga_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sillar-go/sillar/breaker"
	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/sagamem"
)

// logged returns a logger and what it has logged at level and above.
func logged(level slog.Level) (*slog.Logger, *buffer) {
	b := &buffer{}
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: level})), b
}

// buffer is a bytes.Buffer that is safe for concurrent use.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// crashes is a store of one node per lease: lose cuts the present node off for good and starts another.
type crashes struct {
	t    *testing.T
	mem  *sagamem.Store
	defs []saga.Definition
	node *flaky
	o    *saga.Orchestrator
	runs int
}

func (c *crashes) launch() {
	c.node = &flaky{Store: c.mem}
	c.o = saga.Must(saga.New(c.node, saga.Config{Logger: quiet, DrainTimeout: -1}, c.defs...))
	go func() { _ = c.o.Run(c.t.Context()) }()
}

// die is a handler that never returns: its node is cut off and another one is started.
func (c *crashes) die(ctx context.Context) error {
	c.runs++
	c.node.down.Store(true)
	go c.launch()
	<-ctx.Done()
	return ctx.Err()
}

func TestCompensationThatKillsItsProcessEndsStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &crashes{t: t, mem: sagamem.New()}
		def := saga.Define("trip", 1,
			saga.Step("hotel", (&world{}).do("hotel")).CompensateTimeout(time.Hour).
				Compensate(func(ctx context.Context, _ *saga.Call, _ *trip) error { return c.die(ctx) }),
			saga.Step("car", (&world{}).fail("car", saga.Reject(errBoom))))
		c.defs = []saga.Definition{def}
		c.launch()
		synctest.Wait()
		if _, err := def.Start(t.Context(), c.o, "t1", trip{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		r, err := c.mem.Get(t.Context(), "t1")
		if err != nil || r.Status != saga.Stuck || c.runs != 6 {
			t.Errorf("%s after %d runs, %v, want STUCK after 6", r.Status, c.runs, err)
		}
	})
}

func TestTakeoversUseNoAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &crashes{t: t, mem: sagamem.New()}
		def := saga.Define("trip", 1, saga.Step("car", func(ctx context.Context, _ *saga.Call, _ *trip) error {
			if c.runs < 4 {
				return c.die(ctx)
			}
			return nil
		}).Retry(1, saga.Constant(0)).Timeout(time.Hour))
		c.defs = []saga.Definition{def}
		c.launch()
		synctest.Wait()
		if _, err := def.Start(t.Context(), c.o, "t1", trip{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if r, err := c.mem.Get(t.Context(), "t1"); err != nil || r.Status != saga.Completed {
			t.Errorf("%s, %s, %v, want COMPLETED", r.Status, r.Cause, err)
		}
	})
}

// frozen is a store whose calls do not answer while it is frozen, until their context ends.
type frozen struct {
	saga.Store
	until time.Time
}

func (f *frozen) freeze(ctx context.Context) error {
	if time.Now().Before(f.until) {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	return nil
}

func (f *frozen) Claim(ctx context.Context, node string, kinds []saga.Kind, limit int) ([]saga.Claimed, error) {
	return frozenCall(ctx, f, func() ([]saga.Claimed, error) { return f.Store.Claim(ctx, node, kinds, limit) })
}

func (f *frozen) Shapes(ctx context.Context, k saga.Kind) ([]string, error) {
	return frozenCall(ctx, f, func() ([]string, error) { return f.Store.Shapes(ctx, k) })
}

func (f *frozen) Heartbeat(ctx context.Context, node string, d time.Duration) error {
	_, err := frozenCall(ctx, f, func() (int, error) { return 0, f.Store.Heartbeat(ctx, node, d) })
	return err
}

func (f *frozen) Save(ctx context.Context, r saga.Record) error {
	_, err := frozenCall(ctx, f, func() (int, error) { return 0, f.Store.Save(ctx, r) })
	return err
}

func frozenCall[T any](ctx context.Context, f *frozen, call func() (T, error)) (T, error) {
	if err := f.freeze(ctx); err != nil {
		var none T
		return none, err
	}
	return call()
}

func TestFrozenStoreStopsNothingForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		log, text := logged(slog.LevelWarn)
		mem := sagamem.New()
		def := saga.Define("trip", 1, saga.Step("hotel", w.do("hotel")))
		f := &frozen{Store: mem, until: time.Now().Add(2 * time.Second)}
		o := saga.Must(saga.New(f, saga.Config{Logger: log}, def))
		start(t, o)
		other := saga.Must(saga.New(mem, saga.Config{Logger: quiet}, def)) // it starts sagas and runs none
		for i := range 3 {
			h, err := def.Start(t.Context(), other, fmt.Sprint(i), trip{})
			if err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			if _, err := def.Handle(o, h.ID()).Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(begin); took > 15*time.Second {
				t.Errorf("saga %d ended after %v, want at most 15s", i, took)
			}
			f.until = time.Now().Add(time.Duration(i+2) * time.Second)
		}
		if !strings.Contains(text.String(), "deadline exceeded") {
			t.Errorf("logged %s, want the calls that did not answer", text)
		}
	})
}

func TestDefaultBudgetsOutlastADay(t *testing.T) {
	for name, nodes := range map[string]func(h saga.Handler[trip]) []saga.Node[trip]{
		"compensation": func(h saga.Handler[trip]) []saga.Node[trip] {
			w := &world{}
			return []saga.Node[trip]{saga.Step("hotel", w.do("hotel")).Compensate(h),
				saga.Step("car", w.fail("car", saga.Reject(errBoom)))}
		},
		"pivot": func(h saga.Handler[trip]) []saga.Node[trip] { return []saga.Node[trip]{saga.Pivot("pay", h)} },
		"retriable": func(h saga.Handler[trip]) []saga.Node[trip] {
			return []saga.Node[trip]{saga.Pivot("pay", (&world{}).do("pay")), saga.Retriable("ship", h)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				up := time.Now().Add(24 * time.Hour)
				h := func(context.Context, *saga.Call, *trip) error {
					if time.Now().Before(up) {
						return errBoom
					}
					return nil
				}
				log, text := logged(slog.LevelError)
				def := saga.Define("trip", 1, nodes(h)...)
				o := saga.Must(saga.New(sagamem.New(), saga.Config{Logger: log, Lease: 10 * time.Minute, Poll: 10 * time.Second},
					def))
				start(t, o)
				if _, err := def.Start(t.Context(), o, "t1", trip{}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(24*time.Hour + 11*time.Minute)
				if r := status(t, o, "t1"); r.Status != saga.Completed && r.Status != saga.Compensated {
					t.Errorf("%s 11 minutes after the recovery: %v", r.Status, r.Err())
				}
				if text.String() != "" {
					t.Errorf("logged %s", text)
				}
			})
		})
	}
}

func TestStuckSagaIsLoggedAndRetriedWithOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, text := logged(slog.LevelError)
		down := true
		def := saga.Define("trip", 1, saga.Pivot("pay", func(context.Context, *saga.Call, *trip) error {
			if down {
				return errBoom
			}
			return nil
		}).Retry(2, saga.Constant(0)))
		o := saga.Must(saga.New(sagamem.New(), saga.Config{Logger: log}, def))
		start(t, o)
		const sagas = 5
		for i := range sagas {
			h, err := def.Start(t.Context(), o, fmt.Sprint(i), trip{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := h.Wait(t.Context()); !errors.Is(err, saga.ErrStuck) {
				t.Fatalf("Wait: %v, want ErrStuck", err)
			}
		}
		if n := strings.Count(text.String(), "saga: stuck: mend the cause and call Retry"); n != sagas {
			t.Errorf("%d errors logged, want %d: %s", n, sagas, text)
		}
		down = false
		if n, err := o.RetryAll(t.Context(), saga.Filter{Name: "trip", Limit: 2}, "ana"); n != sagas || err != nil {
			t.Errorf("RetryAll = %d, %v, want %d", n, err, sagas)
		}
		time.Sleep(time.Minute)
		if left, err := o.Stuck(t.Context(), saga.Filter{}); len(left) > 0 || err != nil {
			t.Errorf("%d sagas are stuck, %v", len(left), err)
		}
	})
}

// A step that an open breaker refuses was never tried: it waits until the breaker admits a probe, and loses no attempt.
func TestErrorThatDeclaresNotAttemptedUsesNoAttempt(t *testing.T) {
	for name, refusal := range map[string]error{
		"open breaker":     fmt.Errorf("pay: %w", &breaker.OpenError{Name: "payments", RetryAfter: 30 * time.Second}),
		"full bulkhead":    breaker.ErrFull,
		"rate limit":       breaker.ErrLimited,
		"too many (HTTP)":  saga.HTTPError(http.StatusTooManyRequests, time.Minute, errBoom),
		"exhausted (gRPC)": saga.GRPCError(8, errBoom),
	} {
		t.Run(name, func(t *testing.T) {
			tries := 0
			def := saga.Define("trip", 1, saga.Step("car", func(context.Context, *saga.Call, *trip) error {
				if tries++; tries <= 10 {
					return refusal
				}
				return nil
			}).Retry(1, saga.Constant(time.Second)))
			run(t, def, func(t *testing.T, o *saga.Orchestrator, _ trip, err error) {
				st := status(t, o, "t1").Steps[0]
				if err != nil || st.Attempts != 1 || st.InDoubt {
					t.Errorf("%v after %d tries, %d attempts, in doubt %v, want 1 attempt and no doubt", err, tries, st.Attempts,
						st.InDoubt)
				}
			})
		})
	}
	t.Run("attempts were made", func(t *testing.T) {
		err := &breaker.RetryError{Attempts: 2, Err: errBoom, Reason: &breaker.OpenError{}}
		def := saga.Define("trip", 1, saga.Step("car", (&world{}).fail("car", err)).Retry(2, saga.Constant(0)))
		run(t, def, func(t *testing.T, o *saga.Orchestrator, _ trip, err error) {
			if st := status(t, o, "t1").Steps[0]; !errors.Is(err, saga.ErrCompensated) || !st.InDoubt || st.Attempts != 2 {
				t.Errorf("%v, %d attempts, in doubt %v", err, st.Attempts, st.InDoubt)
			}
		})
	})
}

func TestStatusCodesMapToOutcomes(t *testing.T) {
	outcome := func(err error) string {
		var tries int
		var out string
		def := saga.Define("trip", 1, saga.Step("car", func(context.Context, *saga.Call, *trip) error {
			if tries++; tries == 1 {
				return err
			}
			return nil
		}))
		run(t, def, func(t *testing.T, o *saga.Orchestrator, _ trip, err error) {
			switch st := status(t, o, "t1").Steps[0]; {
			case errors.Is(err, saga.ErrCompensated) && !st.InDoubt:
				out = "rejected"
			case st.InDoubt:
				out = "in doubt"
			case tries == 2:
				out = "not attempted"
			default:
				out = "done"
			}
		})
		return out
	}
	for code, want := range map[int]string{200: "done", 204: "done", 302: "rejected", 400: "rejected", 404: "rejected",
		408: "in doubt", 409: "in doubt",
		422: "rejected", 425: "not attempted", 429: "not attempted", 500: "in doubt", 501: "rejected", 502: "in doubt",
		503: "in doubt", 504: "in doubt"} {
		if got := outcome(saga.HTTPError(code, 0, errBoom)); got != want {
			t.Errorf("HTTP %d is %s, want %s", code, got, want)
		}
	}
	if got := outcome(saga.HTTPError(503, time.Second, errBoom)); got != "not attempted" {
		t.Errorf("HTTP 503 with Retry-After is %s, want not attempted", got)
	}
	for code, want := range map[uint32]string{0: "done", 1: "in doubt", 3: "rejected", 4: "in doubt", 7: "rejected",
		8: "not attempted", 13: "in doubt",
		14: "in doubt", 16: "rejected"} {
		if got := outcome(saga.GRPCError(code, errBoom)); got != want {
			t.Errorf("gRPC %d is %s, want %s", code, got, want)
		}
	}
}

func TestHandlerThatIgnoresItsContextIsLoggedAndHoldsOneSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, text := logged(slog.LevelWarn)
		release := make(chan struct{})
		deaf := saga.Define("deaf", 1, saga.Step("car", func(context.Context, *saga.Call, *trip) error {
			<-release
			return nil
		}))
		quick := saga.Define("quick", 1, saga.Step("car", (&world{}).do("car")))
		o := saga.Must(saga.New(sagamem.New(), saga.Config{Logger: log, Concurrency: 2}, deaf, quick))
		start(t, o)
		h, err := deaf.Start(t.Context(), o, "deaf", trip{})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second)
		other, err := quick.Start(t.Context(), o, "quick", trip{})
		if err == nil {
			_, err = other.Wait(t.Context())
		}
		if err != nil || !strings.Contains(text.String(), "ignores that its context has ended") {
			t.Errorf("%v, logged %q, want a warning", err, text)
		}
		close(release)
		if _, err := h.Wait(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// A claim is the intent of the step at which the saga stands, also of the branches of a Parallel.
func TestTakeoverOfAClaimedParallelRunsItsBranches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &crashes{t: t, mem: sagamem.New()}
		def := saga.Define("trip", 1, saga.Parallel("both",
			saga.Step("hotel", func(context.Context, *saga.Call, *trip) error { return nil }),
			saga.Step("car", func(ctx context.Context, _ *saga.Call, _ *trip) error {
				if c.runs == 0 {
					return c.die(ctx)
				}
				return nil
			}).Timeout(time.Hour)))
		c.defs = []saga.Definition{def}
		idle := saga.Must(saga.New(c.mem, saga.Config{Logger: quiet}, def))
		if _, err := def.Start(t.Context(), idle, "t1", trip{}); err != nil { // has no owner until it is claimed
			t.Fatal(err)
		}
		c.launch()
		synctest.Wait()
		time.Sleep(time.Hour)
		r, err := c.mem.Get(t.Context(), "t1")
		if err != nil || r.Status != saga.Completed {
			t.Errorf("%s, %v, want COMPLETED", r.Status, err)
		}
		for _, b := range r.Steps[0].Branches {
			if b.Status != saga.StepCompleted {
				t.Errorf("branch %s is %s", b.Name, b.Status)
			}
		}
	})
}
