package kafka

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// However records are settled and partitions move, a record that was settled does not come again, and one that was not
// does.
func TestPositionSurvivesMoves(t *testing.T) {
	t.Parallel()
	for round := range 200 {
		r := rand.New(rand.NewPCG(1, uint64(round)))
		const n = 300
		settled := map[int64]bool{}
		p := &position{}
		for len(settled) < n {
			var out []int64
			for o := p.seen; o < n && len(out) < 20; o++ {
				if p.take(o) {
					if settled[o] {
						t.Fatalf("round %d: %d comes again", round, o)
					}
					out = append(out, o)
				} else if !settled[o] {
					t.Fatalf("round %d: %d is passed over", round, o)
				}
			}
			r.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
			for _, o := range out[:r.IntN(len(out)+1)] {
				p.settle(o)
				settled[o] = true
			}
			at, spans := p.snapshot()
			if got := decodeSpans(at, encodeSpans(at, spans)); !slices.Equal(got, spans) {
				t.Fatalf("round %d: spans behind %d: got %v, want %v", round, at, got, spans)
			}
			p = &position{seen: at, settled: spans} // the next owner's
		}
		if at, spans := p.snapshot(); at != n || len(spans) != 0 {
			t.Fatalf("round %d: got %d and %v, want %d and none", round, at, spans, n)
		}
	}
}

// Metadata has a limit: what does not fit is left out at the end.
func TestSpansBeyondTheLimit(t *testing.T) {
	t.Parallel()
	var spans []span
	for i := range int64(5000) {
		spans = append(spans, span{2*i + 1, 2*i + 2})
	}
	meta := encodeSpans(0, spans)
	got := decodeSpans(0, meta)
	if len(meta) > maxMeta || len(got) < 1000 || !slices.Equal(got, spans[:len(got)]) {
		t.Errorf("%d bytes for %d of %d spans", len(meta), len(got), len(spans))
	}
}

func FuzzDecodeSpans(f *testing.F) {
	f.Add(int64(5), encodeSpans(5, []span{{7, 9}, {12, 13}}))
	f.Add(int64(0), "other metadata")
	f.Fuzz(func(t *testing.T, at int64, meta string) {
		if at < 0 || at > 1<<60 {
			return
		}
		last := at
		for _, s := range decodeSpans(at, meta) {
			if s.from <= last || s.to <= s.from {
				t.Fatalf("span %v behind %d", s, last)
			}
			last = s.to
		}
	})
}
