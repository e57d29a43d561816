//go:build !race

package simulation_test

import (
	"strings"
	"testing"
)

// Each planted bug is found within ten seeds, by an invariant that it breaks.
func TestPlantedBugsAreFound(t *testing.T) {
	for b, signs := range map[bug][]string{
		noInbox:                   {"was notified 2 times"},
		noBarrier:                 {"stock of", "saga", "charged"},
		publishBeforeCommit:       {"was notified 2 times"},
		acknowledgeBeforeHandling: {"was notified 0 times"},
		noVersionCheck:            {"the customer was told"},
	} {
		t.Run(string(b), func(t *testing.T) {
			t.Parallel()
			for seed := uint64(1); seed <= 10; seed++ {
				findings := simulate(t, settings{Seed: seed, Orders: *orderCount, Rates: usual, Bug: b})
				for _, f := range findings {
					for _, sign := range signs {
						if strings.Contains(f, sign) {
							t.Logf("found at seed %d: %s", seed, f)
							return
						}
					}
				}
				if len(findings) > 0 {
					t.Logf("seed %d: %s", seed, strings.Join(findings, "; "))
				}
			}
			t.Errorf("%s was not found in 10 seeds", b)
		})
	}
}
