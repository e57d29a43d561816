package sqlrepo_test

import (
	"context"
	"errors"
	"testing"

	"github.com/sillar-go/sillar/internal/testenv"
)

var errAgain error = again{}

type again struct{}

func (again) Error() string   { return "run it again" }
func (again) Retryable() bool { return true }

// A write hook changes a copy of its own in each run of the transaction, and never what the caller holds.
func TestHooksStartAfreshInEachRun(t *testing.T) {
	for name, dsn := range testenv.SQL() {
		t.Run(name, func(t *testing.T) {
			_, r := open(t, dsn(t))
			runs := 0
			hook := func(_ context.Context, w *widget) error {
				w.Parts["n"]++
				w.Tags[0] += "x"
				w.Blob[0]++
				*w.Rank++
				if runs++; runs%3 != 0 {
					return errAgain
				}
				return nil
			}
			rank := int64(1)
			in := widget{SKU: "a", Parts: map[string]int{"n": 1}, Tags: []string{"t"}, Blob: []byte{1}, Rank: &rank}
			out, err := r.Create(t.Context(), in, hook)
			if err != nil {
				t.Fatal(err)
			}
			check := func(what string, w widget, n int, tag string) {
				t.Helper()
				if w.Parts["n"] != n || w.Tags[0] != tag || int(w.Blob[0]) != n || *w.Rank != int64(n) {
					t.Errorf("%s: %v %v %v %d, want %d", what, w.Parts, w.Tags, w.Blob, *w.Rank, n)
				}
			}
			check("what the caller holds", in, 1, "t")
			check("what Create returned", out, 2, "tx")
			stored, err := r.Update(t.Context(), out.ID, hook)
			if err != nil {
				t.Fatal(err)
			}
			check("what Update returned", stored, 3, "txx")
			if got, err := r.Get(t.Context(), out.ID); err != nil || runs != 6 {
				t.Errorf("%d runs, %v", runs, err)
			} else {
				check("what is stored", got, 3, "txx")
			}
			if err := r.Delete(t.Context(), out.ID, func(_ context.Context, w *widget) error {
				check("what Delete sees", *w, 3, "txx")
				return hook(t.Context(), w)
			}); err != nil || runs != 9 {
				t.Errorf("delete: %d runs, %v", runs, err)
			}
			if _, err := r.Create(t.Context(), in, func(context.Context, *widget) error { return errAgain }); !errors.Is(err,
				errAgain) {
				t.Errorf("a hook that never succeeds: %v", err)
			}
		})
	}
}
