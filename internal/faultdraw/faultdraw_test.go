package faultdraw

import "testing"

func TestDrawsAreThoseOfTheSeed(t *testing.T) {
	const times = 10_000
	a, b, other := New(1, 0.2), New(1, 0.2), New(2, 0.2)
	counts := map[Fault]int{}
	differs := 0
	for i := range times {
		f := a.At("save")
		if i%3 == 0 {
			b.At("elsewhere") // what happens elsewhere changes nothing
		}
		if g := b.At("save"); f != g {
			t.Fatalf("time %d: %v and %v of one seed", i, f, g)
		}
		if other.At("save") != f {
			differs++
		}
		counts[f]++
	}
	for _, f := range []Fault{Before, After} {
		if n := counts[f]; n < times/10-200 || n > times/10+200 {
			t.Errorf("%d of %d draws are %v, want a tenth", n, times, f)
		}
	}
	if differs < times/10 {
		t.Errorf("another seed differs %d times of %d", differs, times)
	}
}
