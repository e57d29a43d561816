package observability

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestClockWritesRFC3339Nano(t *testing.T) {
	var c clock
	rapid.Check(t, func(t *rapid.T) {
		sec := rapid.Int64Range(-62135596800, 253402300799).Draw(t, "seconds") // the years 1 to 9999
		zone := time.FixedZone("", rapid.IntRange(-14*3600, 14*3600).Draw(t, "zone"))
		for range 2 { // the second time in the same second
			nsec := rapid.OneOf(rapid.Int64Range(0, 999_999_999), rapid.SampledFrom([]int64{0, 1, 100_000_000, 1_000_000})).
				Draw(t, "nanoseconds")
			at := time.Unix(sec, nsec).In(zone)
			if got, want := string(c.append(nil, at)), at.UTC().Format(time.RFC3339Nano); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		}
	})
}
