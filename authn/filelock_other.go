//go:build !unix || solaris || aix

package authn

import "context"

const worldMatters = false

// lockFile locks nothing here: on these systems one process at a time may rotate keys in a file.
func lockFile(context.Context, string) (unlock func(), err error) { return func() {}, nil }
