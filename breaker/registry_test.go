package breaker_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sillar-go/sillar/breaker"
)

func held(r *breaker.Registry) (n int) {
	r.Each(func(string, *breaker.Breaker) bool { n++; return true })
	return n
}

// Keys that fail fill a registry, but not for good.
func TestRegistryForgetsOldFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, err := breaker.NewRegistry(breaker.Config{Failures: 1}, 8)
		if err != nil {
			t.Fatal(err)
		}
		shut := r.Get("shut")
		shut.Open()
		for n := range 50 {
			runs(r.Get(fmt.Sprint("junk", n)), 1, fail)
		}
		late := r.Get("late")
		if late != r.Get("later") || held(r) != 8 {
			t.Fatalf("it is full of failures: %d held", held(r))
		}
		time.Sleep(10*time.Minute - 1)
		if r.Get("late") != late {
			t.Fatal("a failure was forgotten too soon")
		}
		time.Sleep(1)
		good := r.Get("late")
		if good == late || good.Name() != "late" || held(r) != 8 {
			t.Fatalf("it is full for good: %s, %d held", good.Name(), held(r))
		}
		for n := range 50 {
			runs(r.Get(fmt.Sprint("more", n)), 1, fail)
		}
		if r.Get("shut") != shut {
			t.Fatal("a breaker opened by hand was forgotten")
		}
	})
}
