//go:build race

package sagatest_test

func init() { depth = 1 }
