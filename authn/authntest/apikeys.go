package authntest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/sillar-go/sillar/authn"
)

// RunAPIKeys checks an APIKeyStore. open returns a store on a fresh, empty place.
func RunAPIKeys(t *testing.T, open func(t *testing.T) authn.APIKeyStore) {
	for name, test := range map[string]func(*testing.T, authn.APIKeyStore){
		"round trip": apiKeyRoundTrip, "list": apiKeyList, "rotation": apiKeyRotation, "rotation races": apiKeyRaces,
		"delete": apiKeyDelete, "purge": apiKeyPurge, "context": apiKeyContext,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

func apiKey(id, subject string, now time.Time) authn.APIKey {
	return authn.APIKey{
		ID:        id,
		Name:      "name of " + id,
		Subject:   authn.Subject{ID: subject},
		Hash:      "hash-" + id,
		CreatedAt: now,
	}
}

func createAPIKeys(t *testing.T, s authn.APIKeyStore, keys ...authn.APIKey) {
	t.Helper()
	for _, k := range keys {
		if err := s.Create(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
}

// hasAPIKeys checks which of the ids are there.
func hasAPIKeys(t *testing.T, s authn.APIKeyStore, want map[string]bool) {
	t.Helper()
	expectThere(t, s.Lookup, authn.ErrAPIKey, want)
}

func apiKeyRoundTrip(t *testing.T, s authn.APIKeyStore) {
	now := start()
	k := apiKey("a", "u1", now)
	k.Subject = authn.Subject{
		ID: "u1", ClientID: "ci", Roles: []string{"admin", "user"}, Scopes: []string{"orders:read"},
		Claims: map[string]any{"tenant": "acme", "account": int64(9007199254740993)},
	}
	k.PreviousHash, k.PreviousUntil = "old", now.Add(time.Hour)
	k.RotatedAt, k.ExpiresAt = now.Add(time.Minute), now.Add(24*time.Hour)
	createAPIKeys(t, s, k)
	got, err := s.Lookup(t.Context(), "a")
	expectSubject(t, got.Subject, k.Subject)
	got.Subject = k.Subject
	if err != nil || !reflect.DeepEqual(got, k) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, k)
	}
	if err := s.Create(t.Context(), apiKey("a", "u2", now)); err == nil {
		t.Error("one id was added twice")
	}
	forever := apiKey("b", "u1", now)
	createAPIKeys(t, s, forever)
	if got, err := s.Lookup(t.Context(), "b"); err != nil || !reflect.DeepEqual(got, forever) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, forever)
	}
	hasAPIKeys(t, s, map[string]bool{"a": true, "b": true, "none": false, "": false})
}

func apiKeyList(t *testing.T, s authn.APIKeyStore) {
	now := start()
	createAPIKeys(t, s, apiKey("b", "u1", now.Add(time.Second)), apiKey("a", "u1", now.Add(2*time.Second)),
		apiKey("c", "u1", now), apiKey("d", "u2", now))
	for subject, want := range map[string][]string{"u1": {"c", "b", "a"}, "u2": {"d"}, "none": nil} {
		keys, err := s.List(t.Context(), subject)
		var got []string
		for _, k := range keys {
			got = append(got, k.ID)
			if k.Subject.ID != subject || k.Name == "" || k.Hash == "" {
				t.Errorf("an incomplete key of %s: %+v", subject, k)
			}
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("keys of %s: got %v, %v, want %v", subject, got, err, want)
		}
	}
}

func apiKeyRotation(t *testing.T, s authn.APIKeyStore) {
	now := start()
	createAPIKeys(t, s, apiKey("a", "u1", now), apiKey("b", "u1", now))
	r := authn.APIKeyRotation{ID: "a", Old: "hash-a", Next: "next", Now: now.Add(time.Hour),
		PreviousUntil: now.Add(2 * time.Hour), ExpiresAt: now.Add(3 * time.Hour)}
	if err := s.Rotate(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	want := apiKey("a", "u1", now)
	want.Hash, want.PreviousHash, want.PreviousUntil = "next", "hash-a", r.PreviousUntil
	want.RotatedAt, want.ExpiresAt = r.Now, r.ExpiresAt
	if got, err := s.Lookup(t.Context(), "a"); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
	if err := s.Rotate(t.Context(), r); !errors.Is(err, authn.ErrKeyConflict) {
		t.Errorf("a rotation from a hash of before: got %v, want ErrKeyConflict", err)
	}
	r.ID = "none"
	if err := s.Rotate(t.Context(), r); !errors.Is(err, authn.ErrAPIKey) {
		t.Errorf("an unknown key: got %v, want ErrAPIKey", err)
	}
	if got, err := s.Lookup(t.Context(), "b"); err != nil || got.Hash != "hash-b" {
		t.Errorf("another key: got %+v, %v", got, err)
	}
}

func apiKeyRaces(t *testing.T, s authn.APIKeyStore) {
	now := start()
	for race := range 10 {
		id := fmt.Sprint("k", race)
		createAPIKeys(t, s, apiKey(id, "u1", now))
		errs := make([]error, 4)
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() {
				r := authn.APIKeyRotation{ID: id, Old: "hash-" + id, Next: fmt.Sprint("next", i), Now: now}
				errs[i] = s.Rotate(t.Context(), r)
			})
		}
		wg.Wait()
		winner := ""
		for i, err := range errs {
			switch {
			case err == nil && winner != "":
				t.Errorf("race %d: two rotations succeeded", race)
			case err == nil:
				winner = fmt.Sprint("next", i)
			case !errors.Is(err, authn.ErrKeyConflict):
				t.Errorf("race %d: got %v, want ErrKeyConflict", race, err)
			}
		}
		if k, err := s.Lookup(t.Context(), id); err != nil || winner == "" || k.Hash != winner {
			t.Errorf("race %d: got the hash %q, %v, want %q", race, k.Hash, err, winner)
		}
	}
}

func apiKeyDelete(t *testing.T, s authn.APIKeyStore) {
	now := start()
	createAPIKeys(t, s, apiKey("a", "u1", now), apiKey("b", "u1", now), apiKey("c", "u1", now), apiKey("d", "u2", now))
	for _, id := range []string{"a", "a", "none"} {
		if err := s.Delete(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	hasAPIKeys(t, s, map[string]bool{"a": false, "b": true, "c": true, "d": true})
	if err := errors.Join(s.DeleteSubject(t.Context(), "u1"), s.DeleteSubject(t.Context(), "none")); err != nil {
		t.Fatal(err)
	}
	hasAPIKeys(t, s, map[string]bool{"b": false, "c": false, "d": true})
}

func apiKeyPurge(t *testing.T, s authn.APIKeyStore) {
	now := start()
	expired, later, forever := apiKey("a", "u1", now), apiKey("b", "u1", now), apiKey("c", "u1", now)
	expired.ExpiresAt, later.ExpiresAt = now.Add(time.Hour), now.Add(2*time.Hour)
	createAPIKeys(t, s, expired, later, forever)
	if n, err := s.Purge(t.Context(), now.Add(time.Hour)); n != 1 || err != nil {
		t.Errorf("purged %d keys, %v, want 1", n, err)
	}
	hasAPIKeys(t, s, map[string]bool{"a": false, "b": true, "c": true})
}

func apiKeyContext(t *testing.T, s authn.APIKeyStore) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Create(ctx, apiKey("a", "u1", start())); err == nil {
		t.Error("created under an ended context")
	}
	if _, err := s.Lookup(ctx, "a"); err == nil || errors.Is(err, authn.ErrAPIKey) {
		t.Errorf("Lookup under an ended context: got %v, want the error of the context", err)
	}
}
