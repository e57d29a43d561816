//go:build race

package jetstream_test

func init() { raced = true }
