package repositorytest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sillar-go/sillar/repository"
)

func deleteAgainstUpdate(t *testing.T, r repo, _ Features) {
	for round := range 20 {
		w := must[Widget](t)(r.Create(t.Context(), Widget{SKU: "race"}))
		deleted := make(chan error, 1)
		remove := sync.OnceFunc(func() { deleted <- r.Delete(t.Context(), w.ID) })
		if round%2 == 0 {
			go remove() // somewhere
		}
		for range 5 {
			_, err := r.Update(t.Context(), w.ID, func(_ context.Context, x *Widget) error {
				if round%2 == 1 {
					go remove() // in the midst, unless the update keeps it waiting
					time.Sleep(3 * time.Millisecond)
				}
				x.Price++
				return nil
			})
			if err != nil {
				if !errors.Is(err, repository.ErrNotFound) {
					t.Error(err)
				}
				break
			}
		}
		if err := <-deleted; err != nil {
			t.Error(err)
		}
		if _, err := r.Get(t.Context(), w.ID); !errors.Is(err, repository.ErrNotFound) {
			t.Fatalf("an update brought back what was deleted: %v", err)
		}
	}
}

// isolation: what the caller does with its values does not reach the store.
func isolation(t *testing.T, r repo, _ Features) {
	ownMemory(t, r)
	in := full()
	w := must[Widget](t)(r.Create(t.Context(), in))
	in.Tags[0], in.Blob[0], *in.Note = "changed", 9, "changed"
	w2 := must[Widget](t)(r.Get(t.Context(), w.ID))
	w2.Tags[1], w2.Parts["z"], *w2.Rank = "changed", 1, 99
	got := must[Widget](t)(r.Get(t.Context(), w.ID))
	want := full()
	want.Meta, want.Made = w.Meta, want.Made.UTC()
	same(t, "stored", got, want)
}

func concurrentUpdates(t *testing.T, r repo, _ Features) {
	w := must[Widget](t)(r.Create(t.Context(), Widget{SKU: "n"}))
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			for range 20 {
				if _, err := r.Update(t.Context(), w.ID, func(_ context.Context,
					x *Widget) error {
					x.Price++
					return nil
				}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	got := must[Widget](t)(r.Get(t.Context(), w.ID))
	if got.Price != 1000 || got.Version != 1001 {
		t.Fatalf("after 1,000 increments the price is %d at version %d", got.Price, got.Version)
	}
}

func concurrentReplace(t *testing.T, r repo, _ Features) {
	w := must[Widget](t)(r.Create(t.Context(), Widget{SKU: "n"}))
	var won atomic.Int64
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			next := w
			next.Price = int64(i)
			_, err := r.Replace(t.Context(), next)
			if err == nil {
				won.Add(1)
			} else if !errors.Is(err, repository.ErrConflict) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Fatalf("%d of 16 writers of one version won", won.Load())
	}
}
