package record_test

import (
	"testing"
	"time"

	"github.com/sillar-go/sillar/authn/internal/record"
)

func TestTimesComeBack(t *testing.T) {
	for _, want := range []time.Time{{}, time.UnixMicro(1).UTC(), time.Date(2026, 3, 1, 12, 30, 0, 123456000, time.UTC)} {
		if got := record.Time(record.Micros(want)); !got.Equal(want) || got.IsZero() != want.IsZero() ||
			got.Location() != want.Location() {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	if got := record.Micros(time.Time{}); got != 0 {
		t.Errorf("the zero time: got %d, want 0", got)
	}
}
