//go:build !race

package simulation_test

// defaultSeeds take about half a minute on two cores.
const defaultSeeds = 30
