//go:build race

package simulation_test

// defaultSeeds is one under the race detector, which makes each some ten times slower.
const defaultSeeds = 1
