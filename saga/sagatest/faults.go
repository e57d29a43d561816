package sagatest

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sillar-go/sillar/saga"
)

// pair is two orchestrators on one store, in this process.
type pair struct {
	t     *testing.T
	store saga.Store
	nodes [2]*saga.Orchestrator
	ended chan struct{} // closed when the test ends: handlers that hang return then
}

type faultState struct {
	Steps int             `json:"steps"`
	Raw   json.RawMessage `json:"raw,omitempty"`
}

// launch runs two orchestrators until the test ends, which take a step over so often.
func launch(t *testing.T, s saga.Store, def saga.Definition, takeovers int) *pair {
	t.Helper()
	p := &pair{t: t, store: s, ended: make(chan struct{})}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for i := range p.nodes {
		p.nodes[i] = saga.Must(saga.New(s, saga.Config{Lease: time.Minute, Poll: 20 * time.Millisecond,
			MaxTakeovers: takeovers,
			Logger:       slog.New(slog.DiscardHandler), ObserveInterval: -1}, def))
		running.Go(func() {
			if err := p.nodes[i].Run(ctx); err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	t.Cleanup(func() { close(p.ended); stop(); running.Wait() })
	return p
}

// die is a handler whose process is lost: the lease of the saga's owner ends, and the handler hangs until the test
// ends.
func (p *pair) die(ctx context.Context, id string) error {
	r, err := p.store.Get(ctx, id)
	if err == nil {
		err = p.store.Leave(ctx, r.Owner)
	}
	if err != nil {
		return err
	}
	<-p.ended
	return errors.New("too late")
}

// wait returns how a saga ended, which takes a minute at most.
func (p *pair) wait(h *saga.Handle[faultState]) (faultState, error) {
	ctx, cancel := context.WithTimeout(p.t.Context(), time.Minute)
	defer cancel()
	return h.Wait(ctx)
}

func count(_ context.Context, _ *saga.Call, s *faultState) error { s.Steps++; return nil }

func reject(context.Context, *saga.Call, *faultState) error { return saga.Reject(errors.New("no")) }

// A compensation whose every attempt ends with its process ends stuck, after MaxTakeovers: it does not go from node to
// node for ever.
func compensationThatDiesEndsStuck(t *testing.T, s saga.Store, _ Features) {
	var runs atomic.Int32
	var p *pair
	def := saga.Define("dies", 1,
		saga.Step("a", count).CompensateTimeout(time.Hour).
			Compensate(func(ctx context.Context, _ *saga.Call, _ *faultState) error { runs.Add(1); return p.die(ctx, "x") }),
		saga.Step("b", reject))
	p = launch(t, s, def, 2)
	_, err := p.wait(saga.Must(def.Start(t.Context(), p.nodes[0], "x", faultState{})))
	if n := runs.Load(); !errors.Is(err, saga.ErrStuck) || n != 3 {
		t.Errorf("ended with %v after %d runs, want stuck after 3", err, n)
	}
}

// Attempts that end with their process use no attempt of the step.
func takeoversUseNoAttempts(t *testing.T, s saga.Store, _ Features) {
	var runs atomic.Int32
	var p *pair
	def := saga.Define("outlives", 1, saga.Step("a", func(ctx context.Context, _ *saga.Call, state *faultState) error {
		if runs.Add(1) < 3 {
			return p.die(ctx, "x")
		}
		state.Steps++
		return nil
	}).Retry(1, saga.Constant(0)).Timeout(time.Hour))
	// A node whose lease was taken away has none until its next heartbeat, so that the other may take its attempt over:
	// the number of takeovers is not what is checked.
	p = launch(t, s, def, 100)
	state, err := p.wait(saga.Must(def.Start(t.Context(), p.nodes[0], "x", faultState{})))
	if err != nil || state.Steps != 1 {
		t.Errorf("ended with %+v, %v, want completed", state, err)
	}
}

// A result that no store can hold makes the saga stuck, with the reason.
func resultThatCannotBeStored(t *testing.T, s saga.Store, f Features) {
	raw := json.RawMessage("\"\xff\"")
	if f.TooLarge > 0 {
		raw = f.huge()
	}
	def := saga.Define("large", 1, saga.Step("a", func(_ context.Context, _ *saga.Call, state *faultState) error {
		state.Raw = raw
		return nil
	}))
	p := launch(t, s, def, 2)
	_, err := p.wait(saga.Must(def.Start(t.Context(), p.nodes[0], "x", faultState{})))
	var failed *saga.FailedError
	if !errors.Is(err, saga.ErrStuck) || !errors.As(err, &failed) || failed.Cause == "" {
		t.Errorf("ended with %.200v, want stuck with the reason", err)
	}
}

// The loser of a race is not told that it has won.
func losersOfRaces(t *testing.T, s saga.Store, _ Features) {
	var p *pair
	def := saga.Define("races", 1,
		saga.Step("a", count),
		saga.Await("go", func(context.Context, *saga.Call, *faultState, int) error { return nil }),
		saga.Step("last", func(ctx context.Context, c *saga.Call, _ *faultState) error {
			return p.nodes[1].Cancel(ctx, c.SagaID())
		}))
	p = launch(t, s, def, 2)
	cancelled := saga.Must(def.Start(t.Context(), p.nodes[0], "x", faultState{}))
	if err := def.Signal(t.Context(), p.nodes[1], "x", "go", 1); err != nil {
		t.Errorf("Signal: %v", err)
	}
	if _, err := p.wait(cancelled); !errors.Is(err, saga.ErrCompensated) {
		t.Errorf("a saga that was cancelled during its last step ended with %v, want compensated", err)
	}
	timed := saga.Define("races", 2,
		saga.Await("go", func(context.Context, *saga.Call, *faultState, int) error { return nil }).
			Timeout(time.Millisecond),
		saga.Step("last", count))
	late := launch(t, s, timed, 2)
	if _, err := late.wait(saga.Must(timed.Start(t.Context(), late.nodes[0], "y", faultState{}))); !errors.Is(err,
		saga.ErrAwaitTimeout) {
		t.Errorf("ended with %v, want the timeout", err)
	}
	if err := timed.Signal(t.Context(), late.nodes[1], "y", "go", 1); !errors.Is(err, saga.ErrTooLate) &&
		!errors.Is(err, saga.ErrFinished) {
		t.Errorf("Signal after the timeout: %v, want ErrTooLate or ErrFinished", err)
	}
	if _, err := timed.Start(t.Context(), late.nodes[1], "y", faultState{Steps: 7}); !errors.Is(err, saga.ErrStarted) {
		t.Errorf("Start with another state: %v, want ErrStarted", err)
	}
}

// Wait on one node sees a retry on another one.
func waitSeesARetryElsewhere(t *testing.T, s saga.Store, _ Features) {
	var down atomic.Bool
	down.Store(true)
	def := saga.Define("retried", 1, saga.Pivot("a", func(_ context.Context, _ *saga.Call, state *faultState) error {
		if down.Load() {
			return errors.New("down")
		}
		state.Steps++
		return nil
	}).Retry(1, saga.Constant(0)))
	p := launch(t, s, def, 2)
	h := saga.Must(def.Start(t.Context(), p.nodes[0], "x", faultState{}))
	if _, err := p.wait(h); !errors.Is(err, saga.ErrStuck) {
		t.Fatalf("ended with %v, want stuck", err)
	}
	down.Store(false)
	if err := p.nodes[1].Retry(t.Context(), "x", "ana"); err != nil {
		t.Fatal(err)
	}
	if _, err := p.wait(def.Handle(p.nodes[1], "x")); err != nil {
		t.Errorf("Wait where it was retried: %v", err)
	}
	if state, err := p.wait(h); err != nil || state.Steps != 1 {
		t.Errorf("Wait on the other node: %+v, %v", state, err)
	}
}
