package sagamem

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/sillar-go/sillar/saga"
)

func TestIndexIsAnOrderedSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var x index
		want := map[string]bool{}
		key := rapid.StringMatching(`[ab]{0,4}`)
		for range rapid.IntRange(0, 60).Draw(t, "operations") {
			k := key.Draw(t, "key")
			if want[k] = rapid.Bool().Draw(t, "add"); want[k] {
				x.add(k)
			} else {
				delete(want, k)
				x.remove(k)
			}
		}
		from := key.Draw(t, "from")
		var sorted []string
		for k := range want {
			if k >= from {
				sorted = append(sorted, k)
			}
		}
		slices.Sort(sorted)
		if d := cmp.Diff(sorted, slices.Collect(x.from(from))); d != "" {
			t.Errorf("keys from %q (-want +got):\n%s", from, d)
		}
	})
}

// Reading every saga would take some milliseconds a call.
func TestClaimAndListDoNotReadSleepingSagas(t *testing.T) {
	s, ctx := New(), t.Context()
	for i := range 100_000 {
		r := saga.Record{ID: fmt.Sprint(i), Name: "x", Version: 1, Status: saga.Running, WakeAt: time.Now().Add(time.Hour)}
		if i%2 == 0 {
			r.Status = saga.Completed
		}
		s.put(r)
	}
	begin := time.Now()
	const calls = 1000
	for range calls {
		claimed, err := s.Claim(ctx, "n", []saga.Kind{{Name: "x", Version: 1}}, 64)
		stuck, lerr := s.List(ctx, saga.Filter{Statuses: []saga.Status{saga.Stuck}})
		if err != nil || lerr != nil || len(claimed)+len(stuck) > 0 {
			t.Fatal(claimed, stuck, err, lerr)
		}
	}
	if took := time.Since(begin); took > time.Second {
		t.Errorf("%d claims and lists took %v, want far less than 1s", calls, took)
	}
}
