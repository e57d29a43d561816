// Package sagatest checks that a store keeps the promises of saga.Store. A store's test calls Run with a function that
// makes an empty one:
//
//	func TestConformance(t *testing.T) {
//		sagatest.Run(t, func(t testing.TB) saga.Store { return mine.New(...) }, sagatest.Features{})
//	}
package sagatest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sillar-go/sillar/saga"
)

// Features says what a store does beyond the port.
type Features struct {
	// InTx runs a function in a transaction of the store's, which ctx carries. Nil: there are none.
	InTx func(ctx context.Context, s saga.Store, fn func(ctx context.Context) error) error
	// TooLarge is a size in bytes of a state, or a signal, that the store cannot hold. 0: it is not tested.
	TooLarge int
}

// Run runs all checks, each on a store of its own.
func Run(t *testing.T, factory func(t testing.TB) saga.Store, f Features) {
	t.Helper()
	for _, c := range []struct {
		name  string
		check func(*testing.T, saga.Store, Features)
	}{
		{"InsertOnce", insertOnce},
		{"InsertAtOnce", insertAtOnce},
		{"SaveAtOnce", saveAtOnce},
		{"InsertWithSignals", insertWithSignals},
		{"SaveAndGet", saveAndGet},
		{"SaveIsFenced", saveIsFenced},
		{"ClaimInOrder", claimInOrder},
		{"ClaimOnlyKnownKinds", claimOnlyKnownKinds},
		{"ClaimOnce", claimOnce},
		{"Takeover", takeover},
		{"Signals", signals},
		{"SignalAgainstSave", signalAgainstSave},
		{"List", list},
		{"ListByTimeAndAttribute", listByTimeAndAttribute},
		{"Delete", deleteEnded},
		{"Prune", prune},
		{"Shapes", shapes},
		{"InsertRefusedAlone", insertRefusedAlone},
		{"SaveRefusedAlone", saveRefusedAlone},
		{"SignalRefused", signalRefused},
		{"LookedUpInVain", lookedUpInVain},
		{"CompensationThatDiesEndsStuck", compensationThatDiesEndsStuck},
		{"TakeoversUseNoAttempts", takeoversUseNoAttempts},
		{"ResultThatCannotBeStored", resultThatCannotBeStored},
		{"LosersOfRaces", losersOfRaces},
		{"WaitSeesARetryElsewhere", waitSeesARetryElsewhere},
		{"Transaction", transaction},
	} {
		t.Run(c.name, func(t *testing.T) { c.check(t, factory(t), f) })
	}
}

var kind = saga.Kind{Name: "trip", Version: 1}

func record(id string) saga.Record {
	now := time.Now().UTC().Truncate(time.Microsecond)
	return saga.Record{
		ID:      id,
		Name:    kind.Name,
		Version: kind.Version,
		Shape:   "abc",
		Status:  saga.Running,
		State:   []byte(`{"n":1}`),
		Steps: []saga.StepState{
			{Name: "a", Status: saga.StepNotStarted},
			{Name: "b", Status: saga.StepNotStarted, Branches: []saga.StepState{{Name: "c"}}},
		},
		Headers:   map[string]string{"X-Correlation-ID": "c-1"},
		WakeAt:    now,
		CreatedAt: now,
		UpdatedAt: now,
	}
}

func insert(t *testing.T, s saga.Store, r saga.Record) saga.Record {
	t.Helper()
	stored, inserted, err := s.Insert(t.Context(), r)
	if err != nil || !inserted {
		t.Fatalf("Insert %s: inserted %v, %v", r.ID, inserted, err)
	}
	return stored
}

func get(t *testing.T, s saga.Store, id string) saga.Record {
	t.Helper()
	r, err := s.Get(t.Context(), id)
	if err != nil {
		t.Fatalf("Get %s: %v", id, err)
	}
	return r
}

func claim(t *testing.T, s saga.Store, node string, limit int, kinds ...saga.Kind) []saga.Claimed {
	t.Helper()
	if kinds == nil {
		kinds = []saga.Kind{kind}
	}
	c, err := s.Claim(t.Context(), node, kinds, limit)
	if err != nil {
		t.Fatalf("Claim by %s: %v", node, err)
	}
	return c
}

// first claims one saga, which must be due.
func first(t *testing.T, s saga.Store, node string) saga.Record {
	t.Helper()
	c := claim(t, s, node, 1)
	if len(c) != 1 {
		t.Fatalf("%s claimed %d sagas, want the one that is due", node, len(c))
	}
	return c[0].Record
}

func lease(t *testing.T, s saga.Store, node string, d time.Duration) {
	t.Helper()
	if err := s.Heartbeat(t.Context(), node, d); err != nil {
		t.Fatalf("Heartbeat of %s: %v", node, err)
	}
}

var timesAside = cmpopts.IgnoreFields(saga.Record{}, "CreatedAt", "UpdatedAt", "WakeAt")

func insertOnce(t *testing.T, s saga.Store, _ Features) {
	want := insert(t, s, record("x"))
	if want.Revision != 1 {
		t.Errorf("the first revision is %d, want 1", want.Revision)
	}
	if d := cmp.Diff(want, get(t, s, "x"), timesAside, cmpopts.EquateEmpty()); d != "" {
		t.Errorf("stored (-want +got):\n%s", d)
	}
	other := record("x")
	other.State = []byte(`{"n":2}`)
	stored, inserted, err := s.Insert(t.Context(), other)
	if err != nil || inserted || string(stored.State) != `{"n":1}` {
		t.Errorf("a second Insert: inserted %v, state %s, %v", inserted, stored.State, err)
	}
	if _, err := s.Get(t.Context(), "none"); !errors.Is(err, saga.ErrNotFound) {
		t.Errorf("Get of none: %v", err)
	}
}

func insertAtOnce(t *testing.T, s saga.Store, _ Features) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := map[string]int{}
	for i := range 200 {
		wg.Go(func() {
			id := fmt.Sprint("s", i%20)
			_, inserted, err := s.Insert(t.Context(), record(id))
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			if inserted {
				won[id]++
			}
		})
	}
	wg.Wait()
	for i := range 20 {
		if n := won[fmt.Sprint("s", i)]; n != 1 {
			t.Errorf("saga s%d was inserted %d times", i, n)
		}
	}
}

func saveAtOnce(t *testing.T, s saga.Store, _ Features) {
	lease(t, s, "n", time.Minute)
	for i := range 20 {
		insert(t, s, record(fmt.Sprint("s", i)))
	}
	claimed := claim(t, s, "n", 20)
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := map[string][]string{}
	for _, c := range claimed {
		for w := range 5 {
			wg.Go(func() {
				r := c.Clone()
				r.State = fmt.Appendf(nil, `{"writer":%d}`, w)
				err := s.Save(t.Context(), r)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					won[r.ID] = append(won[r.ID], string(r.State))
				case !errors.Is(err, saga.ErrFenced):
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	for _, c := range claimed {
		got := get(t, s, c.ID)
		if w := won[c.ID]; len(w) != 1 || w[0] != string(got.State) || got.Revision != c.Revision+1 {
			t.Errorf("%s: the writes %v succeeded, stored is %s at revision %d", c.ID, w, got.State, got.Revision)
		}
	}
}

func saveAndGet(t *testing.T, s saga.Store, _ Features) {
	insert(t, s, record("x"))
	lease(t, s, "n", time.Minute)
	r := first(t, s, "n")
	r.Version, r.Shape = 2, "def" // an older one was adopted
	r.Status, r.Cursor, r.State = saga.Compensating, 1, []byte(`{"n":7,"s":"zażółć \"q\""}`)
	r.Steps[1] = saga.StepState{
		Name:     "b",
		Status:   saga.StepFailed,
		InDoubt:  true,
		Attempts: 3,
		Error:    "it broke",
		Deadline: time.Now().UTC().Truncate(time.Second),
		Branches: []saga.StepState{{Name: "c", Status: saga.StepCompleted}},
	}
	r.FailedStep, r.Cause = "b", "it broke"
	r.Audit = []saga.Audit{
		{At: time.Now().UTC().Truncate(time.Second), Actor: "ana", Action: "skip", Reason: "done by hand"},
	}
	if err := s.Save(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	r.Revision++
	if d := cmp.Diff(r, get(t, s, "x"), timesAside, cmpopts.EquateEmpty()); d != "" {
		t.Errorf("stored (-want +got):\n%s", d)
	}
}

func saveIsFenced(t *testing.T, s saga.Store, _ Features) {
	insert(t, s, record("x"))
	lease(t, s, "n", time.Minute)
	r := first(t, s, "n")
	for what, change := range map[string]func(*saga.Record){
		"an older fence":    func(r *saga.Record) { r.Fence-- },
		"an older revision": func(r *saga.Record) { r.Revision-- },
		"a newer revision":  func(r *saga.Record) { r.Revision++ },
	} {
		stale := r.Clone()
		change(&stale)
		stale.State = []byte(`{"n":666}`)
		if err := s.Save(t.Context(), stale); !errors.Is(err, saga.ErrFenced) {
			t.Errorf("Save under %s: %v, want ErrFenced", what, err)
		}
	}
	if got := get(t, s, "x"); string(got.State) != `{"n":1}` || got.Revision != r.Revision {
		t.Errorf("a refused Save changed the saga: %s, revision %d", got.State, got.Revision)
	}
	if err := s.Save(t.Context(), record("none")); !errors.Is(err, saga.ErrNotFound) {
		t.Errorf("Save of none: %v", err)
	}
}

func signals(t *testing.T, s saga.Store, _ Features) {
	r := record("x")
	r.WakeAt = time.Now().Add(time.Hour)
	insert(t, s, r)
	boom := errors.New("boom")
	if _, err := s.Signal(t.Context(), "x", "go", func(saga.Record) ([]byte, error) { return nil, boom }); !errors.Is(err,
		boom) {
		t.Errorf("a refused signal: %v", err)
	}
	if first, err := s.Signal(t.Context(), "x", "go", payload(`{"v":1}`)); err != nil || !first {
		t.Errorf("the first signal: %v, %v", first, err)
	}
	if first, err := s.Signal(t.Context(), "x", "go", payload(`{"v":2}`)); err != nil || first {
		t.Errorf("the second signal: %v, %v", first, err)
	}
	if got := get(t, s, "x"); string(got.Signals["go"]) != `{"v":1}` || got.SignalSeq != 1 || got.Revision != 1 {
		t.Errorf("stored: %s, sequence %d, revision %d", got.Signals["go"], got.SignalSeq, got.Revision)
	}
	lease(t, s, "n", time.Minute)
	if c := claim(t, s, "n", 1); len(c) != 1 || string(c[0].Signals["go"]) != `{"v":1}` {
		t.Errorf("a signal did not wake the saga: %v", c)
	}
	if _, err := s.Signal(t.Context(), "none", "go", payload(`1`)); !errors.Is(err, saga.ErrNotFound) {
		t.Errorf("a signal to none: %v", err)
	}
	done := record("done")
	done.Status = saga.Compensated
	insert(t, s, done)
	if _, err := s.Signal(t.Context(), "done", "go", payload(`1`)); !errors.Is(err, saga.ErrFinished) {
		t.Errorf("a signal to a finished saga: %v", err)
	}
}

func insertWithSignals(t *testing.T, s saga.Store, _ Features) {
	r := record("x")
	r.Signals, r.SignalSeq = map[string][]byte{"go": []byte(`{"v":1}`)}, 1
	insert(t, s, r)
	if got := get(t, s, "x"); string(got.Signals["go"]) != `{"v":1}` || got.SignalSeq != 1 {
		t.Errorf("stored: %s, sequence %d", got.Signals["go"], got.SignalSeq)
	}
	if first, err := s.Signal(t.Context(), "x", "go", payload(`2`)); err != nil || first {
		t.Errorf("the same signal again: %v, %v", first, err)
	}
	if _, err := s.Signal(t.Context(), "x", "on", payload(`3`)); err != nil {
		t.Error(err)
	}
	if got := get(t, s, "x"); got.SignalSeq != 2 || len(got.Signals) != 2 {
		t.Errorf("stored: %q, sequence %d", got.Signals, got.SignalSeq)
	}
}

func signalAgainstSave(t *testing.T, s saga.Store, _ Features) {
	insert(t, s, record("x"))
	lease(t, s, "n", time.Minute)
	r := first(t, s, "n")
	if _, err := s.Signal(t.Context(), "x", "go", payload(`1`)); err != nil {
		t.Fatal(err)
	}
	if err := s.Save(t.Context(), r); !errors.Is(err, saga.ErrSignalled) {
		t.Fatalf("Save past an unseen signal: %v, want ErrSignalled", err)
	}
	r.SignalSeq = get(t, s, "x").SignalSeq
	if err := s.Save(t.Context(), r); err != nil {
		t.Fatalf("Save with the signal seen: %v", err)
	}
	if got := get(t, s, "x"); string(got.Signals["go"]) != `1` {
		t.Error("Save wiped the signal")
	}
}

func shapes(t *testing.T, s saga.Store, _ Features) {
	for i, shape := range []string{"one", "two", "two", "ended"} {
		r := record(fmt.Sprint("s", i))
		r.Shape = shape
		if shape == "ended" {
			r.Status = saga.Completed
		}
		insert(t, s, r)
	}
	got, err := s.Shapes(t.Context(), kind)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"one", "two"}, got, cmpopts.SortSlices(func(a, b string) bool { return a < b })); d != "" {
		t.Errorf("shapes (-want +got):\n%s", d)
	}
}

func transaction(t *testing.T, s saga.Store, f Features) {
	if s.InTx(t.Context()) {
		t.Error("InTx of a bare context")
	}
	ran := false
	s.AfterCommit(t.Context(), func() { ran = true })
	if !ran {
		t.Error("AfterCommit outside a transaction did not run at once")
	}
	if f.InTx == nil {
		return
	}
	boom, after := errors.New("boom"), 0
	for _, end := range []error{boom, nil} {
		err := f.InTx(t.Context(), s, func(ctx context.Context) error {
			if !s.InTx(ctx) {
				t.Error("InTx does not see the transaction")
			}
			s.AfterCommit(ctx, func() { after++ })
			if _, _, err := s.Insert(ctx, record(fmt.Sprint("x-", end))); err != nil {
				return err
			}
			return end
		})
		if !errors.Is(err, end) {
			t.Fatal(err)
		}
	}
	if _, err := s.Get(t.Context(), "x-boom"); !errors.Is(err, saga.ErrNotFound) {
		t.Errorf("a rolled back Insert: %v", err)
	}
	get(t, s, "x-<nil>")
	if after != 1 {
		t.Errorf("%d after-commit functions ran, want 1", after)
	}
}
