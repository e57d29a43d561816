package authn_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
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
		v := authn.Must(authn.NewVerifier(two, authn.VerifierConfig{Issuer: issuerName, Audience: []string{"shop"}, Logger: quiet}))
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
