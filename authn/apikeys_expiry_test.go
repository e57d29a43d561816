package authn_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sillar-go/sillar/authn"
)

type countsLookups struct {
	*authn.MemoryAPIKeys
	n    int
	fail error
}

func (c *countsLookups) Lookup(ctx context.Context, id string) (authn.APIKey, error) {
	c.n++
	if c.fail != nil {
		return authn.APIKey{}, c.fail
	}
	return c.MemoryAPIKeys.Lookup(ctx, id)
}

func TestAPIKeysExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, _ := apiKeys(t, authn.APIKeyConfig{TTL: time.Hour})
		short, _ := issueKey(t, k, robot, authn.APIKeyOptions{})
		long, _ := issueKey(t, k, robot, authn.APIKeyOptions{TTL: 2 * time.Hour})
		forever, key := issueKey(t, k, robot, authn.APIKeyOptions{TTL: -1})
		if !key.ExpiresAt.IsZero() {
			t.Errorf("a key without an end: got %s", key.ExpiresAt)
		}
		expect := func(want ...error) {
			t.Helper()
			for i, secret := range []string{short, long, forever} {
				if _, err := k.Verify(t.Context(), secret); !errors.Is(err, want[i]) {
					t.Errorf("key %d: got %v, want %v", i, err, want[i])
				}
			}
		}
		expect(nil, nil, nil)
		time.Sleep(time.Hour - time.Nanosecond)
		expect(nil, nil, nil)
		time.Sleep(time.Nanosecond)
		expect(authn.ErrExpired, nil, nil)
		time.Sleep(1000 * time.Hour)
		expect(authn.ErrExpired, authn.ErrExpired, nil)
	})
}

// The old secret works while the new one is deployed, and no longer; the key lives on as long as it was issued for.
func TestAPIKeyRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, _ := apiKeys(t, authn.APIKeyConfig{TTL: 100 * time.Hour, Overlap: time.Hour})
		first, key := issueKey(t, k, robot, authn.APIKeyOptions{Name: "CI"})
		time.Sleep(10 * time.Hour)
		second, err := k.Rotate(t.Context(), key.ID)
		must(t, err)
		rotated := time.Now()
		verify := func(secret string, want error) *authn.User {
			t.Helper()
			u, err := k.Verify(t.Context(), secret)
			if !errors.Is(err, want) {
				t.Errorf("got %v, want %v", err, want)
			}
			return u
		}
		if u := verify(first, nil); !u.ExpiresAt.Equal(rotated.Add(time.Hour)) {
			t.Errorf("the old secret ends %s, want after the overlap, %s", u.ExpiresAt, rotated.Add(time.Hour))
		}
		if u := verify(second, nil); !u.ExpiresAt.Equal(rotated.Add(100*time.Hour)) || u.TokenID != key.ID {
			t.Errorf("the new secret: got %s until %s", u.TokenID, u.ExpiresAt)
		}
		time.Sleep(time.Hour)
		verify(first, authn.ErrExpired)
		third, err := k.Rotate(t.Context(), key.ID)
		must(t, err)
		verify(first, authn.ErrAPIKey) // no secret of this key any more
		verify(second, nil)
		verify(third, nil)
		fourth, err := k.Rotate(t.Context(), key.ID)
		must(t, err)
		verify(second, authn.ErrAPIKey)
		verify(third, nil)
		verify(fourth, nil)
		time.Sleep(100 * time.Hour)
		verify(fourth, authn.ErrExpired)
		if _, err := k.Rotate(t.Context(), key.ID); !errors.Is(err, authn.ErrAPIKey) {
			t.Errorf("rotating an expired key: got %v, want ErrAPIKey", err)
		}
		unknown := strings.Repeat("a", len(key.ID))
		if _, err := k.Rotate(t.Context(), unknown); !errors.Is(err, authn.ErrAPIKey) {
			t.Errorf("rotating an unknown key: got %v, want ErrAPIKey", err)
		}

		strict, _ := apiKeys(t, authn.APIKeyConfig{Overlap: -1})
		before, key := issueKey(t, strict, robot, authn.APIKeyOptions{TTL: -1})
		after, err := strict.Rotate(t.Context(), key.ID)
		must(t, err)
		k = strict
		verify(before, authn.ErrExpired)
		verify(after, nil)
		time.Sleep(100000 * time.Hour)
		verify(after, nil)
	})
}

func TestAPIKeysAreRevokedByTheirOwner(t *testing.T) {
	k, _ := apiKeys(t, authn.APIKeyConfig{})
	secrets := map[string]string{}
	ids := map[string]string{}
	for _, name := range []string{"ana 1", "ana 2", "ana 3", "ben 1"} {
		secret, key := issueKey(t, k, authn.Subject{ID: name[:3]}, authn.APIKeyOptions{Name: name})
		secrets[name], ids[name] = secret, key.ID
	}
	expect := func(want ...string) {
		t.Helper()
		for name, secret := range secrets {
			_, err := k.Verify(t.Context(), secret)
			if works := strings.Contains(strings.Join(want, ","), name); works != (err == nil) {
				t.Errorf("%s: got %v, want it accepted: %v", name, err, works)
			}
		}
	}
	if err := k.Revoke(t.Context(), "ben", ids["ana 1"]); !errors.Is(err, authn.ErrAPIKey) {
		t.Errorf("the key of another: got %v, want ErrAPIKey", err)
	}
	if err := k.Revoke(t.Context(), "ben", strings.Repeat("a", len(ids["ana 1"]))); !errors.Is(err, authn.ErrAPIKey) {
		t.Errorf("an unknown key: got %v, want ErrAPIKey", err)
	}
	expect("ana 1", "ana 2", "ana 3", "ben 1")
	must(t, k.Revoke(t.Context(), "ana", ids["ana 2"]))
	expect("ana 1", "ana 3", "ben 1")
	keys, err := k.List(t.Context(), "ana")
	if err != nil || len(keys) != 2 {
		t.Errorf("got %d keys of ana, %v, want 2", len(keys), err)
	}
	must(t, k.RevokeSubject(t.Context(), "ana"))
	expect("ben 1")
}
