//go:build !linux

package testenv

import "testing"

// PgBouncer skips the test: a pooler that outlives its test would stay.
func PgBouncer(t testing.TB, _ string) string {
	t.Helper()
	t.Skip("pgbouncer is started on Linux only")
	return ""
}
