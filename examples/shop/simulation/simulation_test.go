package simulation_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var (
	firstSeed  = flag.Uint64("seed", 1, "the first seed")
	seedCount  = flag.Int("seeds", 0, "how many seeds; 0: 30, fewer under -race and -short")
	orderCount = flag.Int("orders", 30, "orders a seed")
)

// usual are rates with which a shop works, and fails often.
var usual = rates{HTTP: 0.1, Broker: 0.1, Database: 0.03}

// simulate runs one seed, and returns what is wrong.
func simulate(t *testing.T, cfg settings) (findings []string) {
	t.Helper()
	var log bytes.Buffer
	cfg.Log = &log
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(cfg)
		begin := time.Now()
		w.run()
		findings = w.check()
		w.close(t)
		t.Logf("seed %d: %d orders in %s of virtual time", cfg.Seed, cfg.Orders, time.Since(begin).Round(time.Second))
	})
	if len(findings) > 0 && cfg.Bug == noBug {
		f, err := os.CreateTemp("", fmt.Sprintf("shop-seed-%d-*.log", cfg.Seed)) //nolint:usetesting // it is read afterwards
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := log.WriteTo(f); err != nil {
			t.Fatal(err)
		}
		t.Logf("the log of this run is in %s", f.Name())
	}
	return findings
}

// Whatever fails: orders exist once, money and stock add up, each event is notified once, and all sagas end.
func TestShopKeepsItsPromisesUnderFaults(t *testing.T) {
	n := *seedCount
	if n == 0 {
		n = defaultSeeds
		if testing.Short() {
			n = min(n, 5)
		}
	}
	for seed := *firstSeed; seed < *firstSeed+uint64(n); seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			if findings := simulate(t, settings{Seed: seed, Orders: *orderCount, Rates: usual}); len(findings) > 0 {
				t.Errorf("again with: GOMAXPROCS=1 go test ./examples/shop/simulation "+
					"-run '^TestShopKeepsItsPromisesUnderFaults$' -seed %d -seeds 1 -orders %d\n%s", seed, *orderCount,
					strings.Join(findings, "\n"))
			}
		})
	}
}
