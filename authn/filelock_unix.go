//go:build unix && !solaris && !aix

package authn

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	"github.com/sillar-go/sillar/internal/backoff"
)

const worldMatters = true

// lockFile takes the lock that processes share; the system releases it when a process ends.
func lockFile(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return nil, errors.Join(err, f.Close())
		}
		if err := backoff.Sleep(ctx, 10*time.Millisecond); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
}
