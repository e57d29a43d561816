package saga_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

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
