package authn_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sillar-go/sillar/authn"
)

// countsLoads counts the reads of a KeyStore.
type countsLoads struct {
	flaky
	n int
}

func (c *countsLoads) Load(ctx context.Context) ([]authn.Key, int64, error) {
	c.mu.Lock()
	c.n++
	c.mu.Unlock()
	return c.flaky.Load(ctx)
}

func (c *countsLoads) loads() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

// A replica accepts a token of a key that another replica has made just now, and random key ids do not flood the store.
func TestKeySetReadsTheStoreForAnUnknownKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &countsLoads{flaky: flaky{KeyStore: authn.NewMemoryKeys()}}
		kc := authn.KeyConfig{PublishAhead: -1, Logger: quiet}
		one, two := authn.Must(authn.NewKeySet(store, kc)), authn.Must(authn.NewKeySet(store, kc))
		ic := authn.IssuerConfig{Issuer: issuerName, Audience: []string{"shop"}, Logger: quiet}
		issuer := authn.Must(authn.NewIssuer(one, authn.NewMemoryTokens(), ic))
		v := authn.Must(authn.NewVerifier(two, authn.VerifierConfig{Issuer: issuerName, Audience: []string{"shop"},
			Logger: quiet}))
		for range 3 {
			must(t, one.Rotate(t.Context()))
			pair, err := issuer.Issue(t.Context(), authn.Subject{ID: "u1"})
			must(t, err)
			if _, err := v.Verify(t.Context(), pair.AccessToken); err != nil {
				t.Errorf("a token of a new key: %v", err)
			}
			time.Sleep(time.Second)
		}

		time.Sleep(2 * time.Second)
		before := store.loads()
		var wg sync.WaitGroup
		for i := range 1000 {
			wg.Go(func() {
				if _, err := two.Keys(t.Context(), fmt.Sprint("random", i), authn.EdDSA); !errors.Is(err, authn.ErrUnknownKey) {
					t.Errorf("got %v, want ErrUnknownKey", err)
				}
			})
		}
		wg.Wait()
		if n := store.loads() - before; n != 1 {
			t.Errorf("1000 unknown ids read the store %d times, want once", n)
		}

		time.Sleep(2 * time.Second)
		store.mu.Lock()
		store.down = true
		store.mu.Unlock()
		for range 2 { // whether the key exists is not known while the store does not answer
			if _, err := two.Keys(t.Context(), "random", authn.EdDSA); !errors.Is(err, authn.ErrUnavailable) {
				t.Errorf("during an outage: got %v, want ErrUnavailable", err)
			}
		}
	})
}

// hangs is a KeyStore whose reads last until their context ends.
type hangs struct {
	authn.KeyStore
	on atomic.Bool
}

func (h *hangs) Load(ctx context.Context) ([]authn.Key, int64, error) {
	if h.on.Load() {
		<-ctx.Done()
		return nil, 0, ctx.Err()
	}
	return h.KeyStore.Load(ctx)
}

// Callers with unknown keys share one read of a store that hangs, and wait no longer than their own contexts.
func TestKeySetWaitsForAHangingStoreOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &hangs{KeyStore: authn.NewMemoryKeys()}
		k := authn.Must(authn.NewKeySet(store, authn.KeyConfig{Logger: quiet}))
		store.on.Store(true)
		began := time.Now()
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				ctx, within := t.Context(), 3*time.Second // the bound of one read
				if i > 25 {
					time.Sleep(time.Millisecond) // the read of another caller has begun
					within = 100 * time.Millisecond
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, within-time.Millisecond)
					defer cancel()
				}
				_, err := k.Keys(ctx, fmt.Sprint("random", i), authn.EdDSA)
				if waited := time.Since(began); !errors.Is(err, authn.ErrUnavailable) || waited > within {
					t.Errorf("got %v after %s, want ErrUnavailable within %s", err, waited, within)
				}
			})
		}
		wg.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		time.Sleep(2 * time.Second)
		wg.Go(func() { _, _ = k.Keys(t.Context(), "random", authn.EdDSA) })
		synctest.Wait()
		cancel()
		if err := k.Rotate(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Rotate during a read of another: got %v, want the end of its context", err)
		}
		wg.Wait()
	})
}
