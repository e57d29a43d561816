package repositorytest_test

import (
	"context"
	"errors"
	"testing"

	"github.com/sillar-go/sillar/repository/memrepo"
	"github.com/sillar-go/sillar/repository/repositorytest"
)

func TestFaultyFailsAtItsRate(t *testing.T) {
	inner := memrepo.Must(memrepo.New[widget](memrepo.Config{}))
	r := repositorytest.Faulty(inner, 7, 0.4)
	w, err := inner.Create(t.Context(), widget{})
	if err != nil {
		t.Fatal(err)
	}
	failed, lost := 0, 0
	for range 200 {
		before, err := inner.Get(t.Context(), w.ID)
		if err != nil {
			t.Fatal(err)
		}
		_, uerr := r.Update(t.Context(), w.ID, func(_ context.Context, w *widget) error { w.Price++; return nil })
		after, err := inner.Get(t.Context(), w.ID)
		if err != nil {
			t.Fatal(err)
		}
		applied := after.Price == before.Price+1
		switch {
		case uerr == nil && !applied:
			t.Error("an update that succeeded was not applied")
		case uerr != nil && !errors.Is(uerr, repositorytest.ErrInjected):
			t.Error(uerr)
		case uerr != nil && applied:
			lost++
		case uerr != nil:
			failed++
		}
	}
	if failed < 20 || lost < 20 {
		t.Errorf("%d failed before and %d after their effect, of 200 at a rate of 0.4", failed, lost)
	}
}
