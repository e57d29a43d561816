package sagatest

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sillar-go/sillar/saga"
)

func claimInOrder(t *testing.T, s saga.Store, _ Features) {
	now := time.Now().UTC()
	for i, id := range []string{"c", "a", "b", "later"} {
		r := record(id)
		r.WakeAt = now.Add(time.Duration(i-10) * time.Second)
		if id == "later" {
			r.WakeAt = now.Add(time.Hour)
		}
		insert(t, s, r)
	}
	lease(t, s, "n", time.Minute)
	var got []string
	for _, c := range append(claim(t, s, "n", 2), claim(t, s, "n", 9)...) {
		if c.TakenOver || c.Owner != "n" || c.Fence != 1 || c.Revision != 2 {
			t.Errorf("claimed %+v", c)
		}
		got = append(got, c.ID)
	}
	if d := cmp.Diff([]string{"c", "a", "b"}, got); d != "" {
		t.Errorf("claimed (-want +got):\n%s", d)
	}
}

func claimOnlyKnownKinds(t *testing.T, s saga.Store, _ Features) {
	insert(t, s, record("x"))
	other := record("y")
	other.Version = 2
	insert(t, s, other)
	done := record("z")
	done.Status = saga.Completed
	insert(t, s, done)
	lease(t, s, "n", time.Minute)
	if c := claim(t, s, "n", 9, saga.Kind{Name: "other", Version: 1}); len(c) != 0 {
		t.Errorf("claimed an unknown kind: %v", c)
	}
	if c := claim(t, s, "n", 9); len(c) != 1 || c[0].ID != "x" {
		t.Errorf("claimed %v, want only x", c)
	}
}

func claimOnce(t *testing.T, s saga.Store, _ Features) {
	const sagas, nodes = 60, 6
	for i := range sagas {
		insert(t, s, record(fmt.Sprintf("s%02d", i)))
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	owners := map[string]string{}
	for n := range nodes {
		node := fmt.Sprint("n", n)
		lease(t, s, node, time.Minute)
		wg.Go(func() {
			for idle := 0; idle < 3; {
				got, err := s.Claim(t.Context(), node, []saga.Kind{kind}, 7)
				if err != nil {
					t.Error(err)
					return
				}
				if len(got) == 0 {
					idle++
				}
				mu.Lock()
				for _, c := range got {
					if owners[c.ID] != "" {
						t.Errorf("%s was claimed by %s and by %s", c.ID, owners[c.ID], node)
					}
					owners[c.ID] = node
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(owners) != sagas {
		t.Errorf("%d of %d sagas were claimed", len(owners), sagas)
	}
}

func takeover(t *testing.T, s saga.Store, _ Features) {
	insert(t, s, record("x"))
	lease(t, s, "a", time.Minute)
	lease(t, s, "b", time.Minute)
	mine := first(t, s, "a")
	if c := claim(t, s, "b", 1); len(c) != 0 {
		t.Fatalf("b took a saga of a living owner: %v", c)
	}
	lease(t, s, "a", -time.Second) // the lease runs out
	c := claim(t, s, "b", 1)
	if len(c) != 1 || !c[0].TakenOver || c[0].Fence != mine.Fence+1 {
		t.Fatalf("b claimed %+v, want a takeover under a higher fence", c)
	}
	if err := s.Save(t.Context(), mine); !errors.Is(err, saga.ErrFenced) {
		t.Errorf("the zombie's write: %v, want ErrFenced", err)
	}
	released := c[0].Record
	released.Owner = ""
	if err := s.Save(t.Context(), released); err != nil {
		t.Fatal(err)
	}
	if c := claim(t, s, "a", 1); len(c) != 1 || c[0].TakenOver {
		t.Errorf("after a release: %+v, want a claim that is no takeover", c)
	}
	if err := s.Leave(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if c := claim(t, s, "b", 1); len(c) != 1 || !c[0].TakenOver {
		t.Errorf("after the owner left: %+v, want a takeover", c)
	}
}

// payload accepts a signal.
func payload(raw string) func(saga.Record) ([]byte, error) {
	return func(saga.Record) ([]byte, error) { return []byte(raw), nil }
}
