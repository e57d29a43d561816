package testenv

import "runtime/debug"

// BuildFlags returns the flags of go build that make what this test was made of: a test that builds a program with them
// compiles no package twice.
func BuildFlags() []string {
	info, _ := debug.ReadBuildInfo()
	if info != nil {
		for _, s := range info.Settings {
			if s.Key == "-race" && s.Value == "true" {
				return []string{"-race"}
			}
		}
	}
	return nil
}
