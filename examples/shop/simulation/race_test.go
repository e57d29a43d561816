//go:build race

package simulation_test

// defaultSeeds are few under the race detector, which makes each some ten times slower.
const defaultSeeds = 2
