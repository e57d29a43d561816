// Package depstest holds what a package may link: an importer pays for every line of that list.
package depstest

import (
	"os/exec"
	"strings"
	"testing"
)

// Check fails the test when pkg links a package that is neither of the standard library, nor pkg itself, nor an allowed
// path or below one. An allowed path that ends in $ allows nothing below it.
func Check(t testing.TB, pkg string, allow ...string) {
	t.Helper()
	for _, dep := range Outside(t, pkg, allow...) {
		t.Errorf("%s links %s", pkg, dep)
	}
}

// Outside returns what Check would complain about.
func Outside(t testing.TB, pkg string, allow ...string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", pkg)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("depstest: go list %s: %v\n%s", pkg, err, stderr.String())
	}
	var outside []string
	for dep := range strings.FieldsSeq(string(out)) {
		if dep != pkg && !allowed(dep, allow) {
			outside = append(outside, dep)
		}
	}
	return outside
}

func allowed(dep string, allow []string) bool {
	for _, a := range allow {
		exact, only := strings.CutSuffix(a, "$")
		if dep == exact || !only && strings.HasPrefix(dep, a+"/") {
			return true
		}
	}
	return false
}
