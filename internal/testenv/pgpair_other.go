//go:build !linux

package testenv

import "testing"

// PostgresPair is a PostgreSQL of a test's own with a synchronous standby.
type PostgresPair struct{}

// PostgresCluster skips the test: servers of a test's own are started on Linux only.
func PostgresCluster(t testing.TB) *PostgresPair {
	t.Helper()
	t.Skip("a PostgreSQL of the test's own is started on Linux only")
	return nil
}

// PostgresAt skips the test.
func PostgresAt(t testing.TB, _ string) *PostgresPair {
	t.Helper()
	return PostgresCluster(t)
}

// SQL does nothing.
func (*PostgresPair) SQL(testing.TB, string) {}

// Value returns nothing.
func (*PostgresPair) Value(testing.TB, string, string) string { return "" }

// URL returns nothing.
func (*PostgresPair) URL(string) string { return "" }

// Failover does nothing.
func (*PostgresPair) Failover(testing.TB) {}

// Freeze does nothing.
func (*PostgresPair) Freeze(testing.TB) {}

// Promote does nothing.
func (*PostgresPair) Promote(testing.TB) {}
