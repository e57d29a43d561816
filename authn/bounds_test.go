package authn

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestMemoryIsBounded(t *testing.T) {
	c := newTokenCache(100)
	for i := range 1000 {
		c.put(fmt.Sprint(i), &claims{exp: time.Now().Add(time.Hour)})
		if i >= 50 && c.get("0") == nil { // the one that is used stays
			t.Fatalf("the token in use was forgotten after %d", i)
		}
		c.get("0")
	}
	if c.order.Len() != 100 || len(c.byKey) != 100 {
		t.Errorf("the cache holds %d and %d tokens", c.order.Len(), len(c.byKey))
	}

	l := newLimiter(3, time.Hour)
	for i := range maxBuckets + 10_000 {
		l.take(fmt.Sprint(i))
	}
	if len(l.full) > maxBuckets {
		t.Errorf("the limiter holds %d buckets", len(l.full))
	}

	r := NewRevokedIDs(10)
	now := time.Now()
	for i := range 50 {
		r.Add(fmt.Sprint(i), now.Add(time.Duration(i+1)*time.Hour))
	}
	if len(r.ids) != 10 {
		t.Errorf("%d ids are remembered", len(r.ids))
	}
	for id, want := range map[string]bool{"49": true, "40": true, "39": false} {
		if got, _ := r.Revoked(t.Context(), id); got != want {
			t.Errorf("id %s is revoked: %v", id, got)
		}
	}
}

func TestExpiredIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemoryTokens()
		r := NewRevokedIDs(0)
		for i := range 100 {
			now := time.Now()
			id := fmt.Sprint(i)
			if err := m.Create(t.Context(), RefreshToken{Hash: id, Family: id,
				ExpiresAt: now.Add(5 * time.Minute)}); err != nil {
				t.Fatal(err)
			}
			if err := m.RevokeID(t.Context(), id, now.Add(5*time.Minute)); err != nil {
				t.Fatal(err)
			}
			r.Add(id, now.Add(5*time.Minute))
			time.Sleep(time.Minute)
		}
		if len(m.tokens) > 7 || len(m.revoked) > 7 || len(r.ids) > 7 {
			t.Errorf("%d tokens and %d ids are kept, and %d ids of RevokedIDs", len(m.tokens), len(m.revoked), len(r.ids))
		}
	})
}

// TestRotationUnderLoad issues and verifies on two replicas over one file while both rotate.
func TestRotationUnderLoad(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	path := filepath.Join(t.TempDir(), "keys.json")
	cfg := KeyConfig{PublishAhead: -1, RefreshEvery: time.Millisecond, Logger: log}
	var sets []*KeySet
	for range 2 {
		sets = append(sets, Must(NewKeySet(NewFileKeys(path), cfg)))
	}
	var wg sync.WaitGroup
	for n := range 4 {
		k := sets[n%2]
		i := Must(NewIssuer(k, NewMemoryTokens(), IssuerConfig{Issuer: "x", Logger: log}))
		v := Must(NewVerifier(k, VerifierConfig{Issuer: "x", Logger: log}))
		wg.Go(func() {
			for range 50 {
				p, err := i.Issue(t.Context(), Subject{ID: "u"})
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := v.Verify(t.Context(), p.AccessToken); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for n := range 10 {
		if err := sets[n%2].Rotate(t.Context()); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
	keys, _, err := NewFileKeys(path).Load(t.Context())
	if err != nil || len(keys) < 11 {
		t.Errorf("%d keys after 10 rotations, %v", len(keys), err)
	}
}
