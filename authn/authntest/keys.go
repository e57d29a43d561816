package authntest

import (
	"context"
	"errors"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/sillar-go/sillar/authn"
)

// RunKeys checks a KeyStore. open returns a store on a fresh, empty place; reopen, which may be nil, returns another
// store on the same place, as after a restart.
func RunKeys(t *testing.T, open func(t *testing.T) (store authn.KeyStore, reopen func() authn.KeyStore)) {
	t.Run("empty", func(t *testing.T) {
		s, _ := open(t)
		if keys, v, err := s.Load(t.Context()); len(keys) != 0 || v != 0 || err != nil {
			t.Errorf("an empty store: %d keys, version %d, %v", len(keys), v, err)
		}
	})
	t.Run("round trip", func(t *testing.T) { keysRoundTrip(t, open) })
	t.Run("conflict", func(t *testing.T) { keysConflict(t, open) })
	t.Run("context", func(t *testing.T) {
		s, _ := open(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.Save(ctx, nil, 0); err == nil {
			t.Error("saved under an ended context")
		}
	})
}

type openKeys = func(t *testing.T) (store authn.KeyStore, reopen func() authn.KeyStore)

func newKey(t *testing.T, alg authn.Algorithm) authn.Key {
	t.Helper()
	k, err := authn.GenerateKey(alg, time.Now().Truncate(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// keysRoundTrip checks that what is loaded is what was saved.
func keysRoundTrip(t *testing.T, open openKeys) {
	s, reopen := open(t)
	a, b := newKey(t, authn.EdDSA), newKey(t, authn.HS256)
	b.ExpiresAt = b.ActiveFrom.Add(time.Hour)
	if err := s.Save(t.Context(), []authn.Key{a, b}, 0); err != nil {
		t.Fatal(err)
	}
	if reopen != nil {
		s = reopen()
	}
	got, v, err := s.Load(t.Context())
	if err != nil || v < 1 || len(got) != 2 {
		t.Fatalf("%d keys, version %d, %v", len(got), v, err)
	}
	for i, want := range []authn.Key{a, b} {
		g := got[i]
		if g.ID != want.ID || g.Algorithm != want.Algorithm || !g.ActiveFrom.Equal(want.ActiveFrom) ||
			!g.ExpiresAt.Equal(want.ExpiresAt) ||
			!reflect.DeepEqual(g.Private.Reveal(), want.Private.Reveal()) {
			t.Errorf("key %d came back changed", i)
		}
	}
}

// keysConflict checks that one of several saves of the same version succeeds.
func keysConflict(t *testing.T, open openKeys) {
	s, _ := open(t)
	const n = 8
	errs := make([]error, n)
	mine := make([]authn.Key, n)
	for i := range mine {
		mine[i] = newKey(t, authn.EdDSA)
	}
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = s.Save(t.Context(), mine[i:i+1], 0) })
	}
	wg.Wait()
	won := -1
	for i, err := range errs {
		switch {
		case err == nil && won >= 0:
			t.Error("two saves of one version succeeded")
		case err == nil:
			won = i
		case !errors.Is(err, authn.ErrKeyConflict):
			t.Errorf("the loser's error: %v", err)
		}
	}
	got, v, err := s.Load(t.Context())
	if err != nil || won < 0 || len(got) != 1 || got[0].ID != mine[won].ID {
		t.Fatalf("not the winner's key: %v", err)
	}
	if err := s.Save(t.Context(), nil, v-1); !errors.Is(err, authn.ErrKeyConflict) {
		t.Errorf("an old version: %v", err)
	}
	if err := s.Save(t.Context(), nil, v+1); !errors.Is(err, authn.ErrKeyConflict) {
		t.Errorf("a version to come: %v", err)
	}
	if err := s.Save(t.Context(), mine[:2], v); err != nil {
		t.Errorf("the right version: %v", err)
	}
}
