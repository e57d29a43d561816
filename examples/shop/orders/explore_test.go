//go:build !race

package orders

import (
	"testing"

	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/sagatest"
)

// Every schedule of two faults, over the shop's own sagas. The race detector makes each some ten times slower, and has
// nothing to find in definitions.
func TestSagasUnderEverySchedule(t *testing.T) {
	for _, def := range []saga.Definition{placeOrder(&steps{}), cancelOrder(&steps{})} {
		t.Run(def.Name(), func(t *testing.T) {
			t.Parallel()
			if r := sagatest.Explore(t, def, sagatest.ExploreConfig{}); r.Runs < 500 {
				t.Errorf("only %d schedules", r.Runs)
			}
		})
	}
}
