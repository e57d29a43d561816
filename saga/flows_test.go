package saga_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/sagamem"
)

type flow struct{ Log []string }

func note(what string) saga.Handler[flow] {
	return func(_ context.Context, _ *saga.Call, s *flow) error { s.Log = append(s.Log, what); return nil }
}

// orchestrate starts an orchestrator in a bubble; it ends with the test.
func orchestrate(t *testing.T, store saga.Store, defs ...saga.Definition) *saga.Orchestrator {
	t.Helper()
	o := saga.Must(saga.New(store, saga.Config{}, defs...))
	start(t, o)
	return o
}

func wantLog(t *testing.T, got flow, err error, want ...string) {
	t.Helper()
	if err != nil || !slices.Equal(got.Log, want) {
		t.Errorf("the saga did %q, %v; want %q", got.Log, err, want)
	}
}

func TestSleepSurvivesRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		def := saga.Define("trial", 1,
			saga.Step("sign-up", note("sign-up")),
			saga.Sleep[flow]("trial-period", 14*time.Hour),
			saga.Pivot("charge", note("charge")),
			saga.SleepUntil("grace", func(s flow) time.Time { return time.Now().Add(time.Duration(len(s.Log)) * time.Hour) }),
			saga.Retriable("remind", note("remind")))
		store, begin := sagamem.New(), time.Now()
		first := saga.Must(saga.New(store, saga.Config{}, def))
		ctx, stop := context.WithCancel(t.Context())
		go func() { _ = first.Run(ctx) }()
		synctest.Wait()
		if _, err := def.Start(ctx, first, "1", flow{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		stop()
		time.Sleep(time.Hour)
		s, err := def.Handle(orchestrate(t, store, def), "1").Wait(t.Context())
		wantLog(t, s, err, "sign-up", "charge", "remind")
		if took := time.Since(begin); took < 14*time.Hour+2*time.Hour || took > 14*time.Hour+2*time.Hour+5*time.Second {
			t.Errorf("the saga took %v, want 16 hours", took)
		}
	})
}

func TestCancelEndsASleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		def := saga.Define("trial", 1, saga.Step("a", note("a")).Compensate(note("undo a")),
			saga.Sleep[flow]("wait", time.Hour))
		o := orchestrate(t, sagamem.New(), def)
		h := saga.Must(def.Start(t.Context(), o, "1", flow{}))
		time.Sleep(time.Minute)
		if err := o.Cancel(t.Context(), "1"); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		if _, err := h.Wait(t.Context()); !errors.Is(err, saga.ErrCancelled) || time.Since(begin) > 5*time.Second {
			t.Errorf("after %v: %v, want ErrCancelled at once", time.Since(begin), err)
		}
	})
}

func TestSleepOfAPanicFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		def := saga.Define("x", 1, saga.SleepUntil("wait", func(flow) time.Time { panic("no date") }))
		h := saga.Must(def.Start(t.Context(), orchestrate(t, sagamem.New(), def), "1", flow{}))
		if _, err := h.Wait(t.Context()); !errors.Is(err, saga.ErrCompensated) || !strings.Contains(err.Error(), "no date") {
			t.Errorf("got %v, want a compensated saga that says why", err)
		}
	})
}

func TestAwaitGoesOnAfterItsTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		def := saga.Define("order", 1,
			saga.Pivot("capture", note("capture")),
			saga.Await("shipped", noteSignal).Timeout(time.Hour).OnTimeout(note("ask the carrier")),
			saga.Retriable("close", note("close")))
		o := orchestrate(t, sagamem.New(), def)
		late := saga.Must(def.Start(t.Context(), o, "late", flow{}))
		early := saga.Must(def.Start(t.Context(), o, "early", flow{}))
		if err := def.Signal(t.Context(), o, "early", "shipped", "shipped"); err != nil {
			t.Fatal(err)
		}
		s, err := early.Wait(t.Context())
		wantLog(t, s, err, "capture", "shipped", "close")
		s, err = late.Wait(t.Context())
		wantLog(t, s, err, "capture", "ask the carrier", "close")
		if err := def.Signal(t.Context(), o, "late", "shipped", "shipped"); !errors.Is(err, saga.ErrFinished) {
			t.Errorf("a signal to the finished saga: %v", err)
		}
	})
}

func TestDeadlineCompensates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := func(context.Context, *saga.Call, *flow) error { return errors.New("down") }
		def := saga.Define("order", 1,
			saga.Step("reserve", note("reserve")).Compensate(note("release")),
			saga.Step("pay", down).Compensate(note("refund")).Retry(1000, saga.Exponential(time.Second, time.Hour)),
			saga.Pivot("confirm", note("confirm"))).Deadline(10 * time.Minute)
		h := saga.Must(def.Start(t.Context(), orchestrate(t, sagamem.New(), def), "1", flow{}))
		begin := time.Now()
		s, err := h.Wait(t.Context())
		if took := time.Since(begin); !errors.Is(err, saga.ErrDeadline) || took < 10*time.Minute || took > 10*time.Minute+
			5*time.Second {
			t.Errorf("after %v: %v, want ErrDeadline after 10 minutes", took, err)
		}
		wantLog(t, s, nil, "reserve", "refund", "release")
	})
}

func TestDeadlineEndsBeforeThePivot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		def := saga.Define("order", 1,
			saga.Pivot("confirm", note("confirm")),
			saga.Sleep[flow]("wait", time.Hour),
			saga.Retriable("ship", note("ship"))).Deadline(time.Minute)
		s, err := saga.Must(def.Start(t.Context(), orchestrate(t, sagamem.New(), def), "1", flow{})).Wait(t.Context())
		wantLog(t, s, err, "confirm", "ship")
	})
}

// A branch that pauses for long leaves its slot, and the other branches are not made again for it.
func TestBranchesParkAndGoOnAfterThePivot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var slow, quick atomic.Int32
		type both struct{ A, B int32 }
		def := saga.Define("order", 1,
			saga.Pivot("confirm", func(context.Context, *saga.Call, *both) error { return nil }),
			saga.Parallel("tell",
				saga.Retriable("warehouse", func(_ context.Context, _ *saga.Call, s *both) error {
					if s.A = slow.Add(1); s.A < 5 {
						return errors.New("down")
					}
					return nil
				}).Retry(10, saga.Constant(time.Hour)),
				saga.Retriable("customer", func(_ context.Context, _ *saga.Call, s *both) error {
					s.B = quick.Add(1)
					return nil
				})))
		o := saga.Must(saga.New(sagamem.New(), saga.Config{Concurrency: 1}, def))
		ctx := t.Context()
		start(t, o)
		begin := time.Now()
		first := saga.Must(def.Start(ctx, o, "1", both{}))
		second := saga.Must(def.Start(ctx, o, "2", both{}))
		if s, err := second.Wait(ctx); err != nil || time.Since(begin) > 6*time.Hour {
			t.Errorf("the saga behind it: %v, %v after %v", s, err, time.Since(begin))
		}
		if s, err := first.Wait(ctx); err != nil || quick.Load() != 2 {
			t.Errorf("%+v, %v; %d calls of the branch that succeeded, want 2", s, err, quick.Load())
		}
	})
}

func TestBranchesAfterThePivotAreRetriedAndSkipped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		down.Store(true)
		branch := func(name string) *saga.ForwardDef[struct{}] {
			return saga.Retriable(name, func(context.Context, *saga.Call, *struct{}) error {
				if down.Load() {
					return errors.New("down")
				}
				return nil
			}).Retry(2, saga.Constant(time.Millisecond))
		}
		def := saga.Define("order", 1,
			saga.Pivot("confirm", func(context.Context, *saga.Call, *struct{}) error { return nil }),
			saga.Parallel("both", branch("a"), branch("b")))
		o := orchestrate(t, sagamem.New(), def)
		for _, id := range []string{"retried", "skipped"} {
			h := saga.Must(def.Start(t.Context(), o, id, struct{}{}))
			if _, err := h.Wait(t.Context()); !errors.Is(err, saga.ErrStuck) {
				t.Fatalf("%s: %v, want ErrStuck", id, err)
			}
		}
		if err := o.Skip(t.Context(), "skipped", "none", "ana", "x"); !errors.Is(err, saga.ErrStep) {
			t.Errorf("Skip of another step: %v", err)
		}
		if err := o.Skip(t.Context(), "skipped", "a", "ana", "done by hand"); err != nil {
			t.Fatal(err)
		}
		if _, err := def.Handle(o, "skipped").Wait(t.Context()); !errors.Is(err, saga.ErrStuck) {
			t.Fatalf("with one branch skipped: %v, want ErrStuck", err)
		}
		if err := o.Skip(t.Context(), "skipped", "b", "ana", "done by hand"); err != nil {
			t.Fatal(err)
		}
		down.Store(false)
		if err := o.Retry(t.Context(), "retried", "ana"); err != nil {
			t.Fatal(err)
		}
		for _, id := range []string{"retried", "skipped"} {
			if _, err := def.Handle(o, id).Wait(t.Context()); err != nil {
				t.Errorf("%s: %v", id, err)
			}
		}
	})
}

func TestLimitsBoundSagasAndBranches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var atOnce, most, inSaga, mostInSaga atomic.Int32
		slow := func(now, max *atomic.Int32) saga.Handler[struct{}] {
			return func(context.Context, *saga.Call, *struct{}) error {
				for n := now.Add(1); ; {
					m := max.Load()
					if n <= m || max.CompareAndSwap(m, n) {
						break
					}
				}
				time.Sleep(time.Second)
				now.Add(-1)
				return nil
			}
		}
		limited := saga.Define("limited", 1, saga.Step("slow", slow(&atOnce, &most))).Concurrency(3)
		branches := saga.Define("branches", 1, saga.Parallel("all", saga.Step("a", slow(&inSaga, &mostInSaga)),
			saga.Step("b", slow(&inSaga, &mostInSaga)), saga.Step("c", slow(&inSaga, &mostInSaga))).Limit(2))
		o := orchestrate(t, sagamem.New(), limited, branches)
		var handles []*saga.Handle[struct{}]
		begin := time.Now()
		for i := range 30 {
			handles = append(handles, saga.Must(limited.Start(t.Context(), o, fmt.Sprint(i), struct{}{})))
		}
		other := saga.Must(branches.Start(t.Context(), o, "other", struct{}{}))
		if _, err := other.Wait(t.Context()); err != nil || time.Since(begin) > 3*time.Second {
			t.Errorf("a saga of another definition: %v after %v", err, time.Since(begin))
		}
		for _, h := range handles {
			if _, err := h.Wait(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if most.Load() != 3 || mostInSaga.Load() != 2 {
			t.Errorf("%d sagas and %d branches at once, want 3 and 2", most.Load(), mostInSaga.Load())
		}
		if took := time.Since(begin); took > 15*time.Second {
			t.Errorf("30 sagas of a second, 3 at once, took %v", took)
		}
	})
}

func TestWaitsStandWhereTheyMay(t *testing.T) {
	ok := func(context.Context, *saga.Call, *flow) error { return nil }
	each := func(context.Context, *saga.Call, *flow, string) (bool, error) { return true, nil }
	pivot := saga.Pivot("pivot", ok)
	for what, def := range map[string]*saga.Def[flow]{
		"a timeout after the pivot":           saga.Define("x", 1, pivot, saga.Await("a", noteSignal).Timeout(time.Hour)),
		"a compensation after the pivot":      saga.Define("x", 1, pivot, saga.Await("a", noteSignal).Compensate(ok)),
		"OnTimeout without a timeout":         saga.Define("x", 1, saga.Await("a", noteSignal).OnTimeout(ok)),
		"an AwaitEach that compensates":       saga.Define("x", 1, saga.AwaitEach("a", each).Compensate(ok)),
		"a step in a parallel after it":       saga.Define("x", 1, pivot, saga.Parallel[flow]("p", saga.Step("a", ok))),
		"a retriable in a parallel before it": saga.Define("x", 1, saga.Parallel[flow]("p", saga.Retriable("a", ok)), pivot),
		"an await in a parallel":              saga.Define("x", 1, saga.Parallel[flow]("p", saga.Await("a", noteSignal))),
		"a sleep without a time":              saga.Define("x", 1, saga.SleepUntil[flow]("a", nil)),
		"a negative limit":                    saga.Define("x", 1, saga.Parallel[flow]("p", saga.Step("a", ok)).Limit(-1)),
		"a negative deadline":                 saga.Define("x", 1, pivot).Deadline(-1),
	} {
		if _, err := saga.New(sagamem.New(), saga.Config{}, def); !errors.Is(err, saga.ErrDefinition) {
			t.Errorf("%s: %v, want ErrDefinition", what, err)
		}
	}
}

// countingStore counts the reads of waiting callers.
type countingStore struct {
	saga.Store
	reads atomic.Int64
}

func (s *countingStore) Get(ctx context.Context, id string) (saga.Record, error) {
	s.reads.Add(1)
	return s.Store.Get(ctx, id)
}

func (s *countingStore) List(ctx context.Context, f saga.Filter) ([]saga.Record, error) {
	s.reads.Add(1)
	return s.Store.List(ctx, f)
}

func TestCallersThatWaitShareAPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		def := saga.Define("x", 1, saga.Sleep[flow]("wait", 10*time.Second))
		store := &countingStore{Store: sagamem.New()}
		o := orchestrate(t, store.Store, def)
		web := saga.Must(saga.New(store, saga.Config{}, def)) // does not run
		const callers = 1500
		var wg sync.WaitGroup
		for i := range callers {
			h := saga.Must(def.Start(t.Context(), web, fmt.Sprint(i), flow{}))
			wg.Go(func() {
				if _, err := h.Wait(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		begin := time.Now()
		wg.Wait()
		if took := time.Since(begin); took > 15*time.Second {
			t.Errorf("the callers waited %v", took)
		}
		if n := store.reads.Load(); n > callers+200 {
			t.Errorf("%d reads for %d callers in about 11 s, want one a caller and two every 250 ms", n, callers)
		}
		_ = o
	})
}
