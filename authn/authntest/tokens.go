package authntest

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/sillar-go/sillar/authn"
)

// RunTokens checks a TokenStore. open returns a store on a fresh, empty place.
func RunTokens(t *testing.T, open func(t *testing.T) authn.TokenStore) {
	for name, test := range map[string]func(*testing.T, authn.TokenStore){
		"round trip": roundTrip, "rotation": rotation, "reuse": reuse, "no grace": noGrace, "expiry": expiry,
		"revocation":  revocation,
		"revoked ids": revokedIDs, "purge": purge, "strict races": strictRaces, "revoke against rotate": revokeAgainstRotate,
		"sessions": sessions,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

// start is a time that every store can hold exactly.
func start() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }

func refreshToken(hash, family, subject string, now time.Time) authn.RefreshToken {
	return authn.RefreshToken{Hash: hash, Family: family, Subject: authn.Subject{ID: subject}, CreatedAt: now,
		ExpiresAt: now.Add(time.Hour), FamilyEndsAt: now.Add(24 * time.Hour)}
}

func create(t *testing.T, s authn.TokenStore, x authn.RefreshToken) {
	t.Helper()
	if err := s.Create(t.Context(), x); err != nil {
		t.Fatal(err)
	}
}

// has checks which of the hashes are there.
func has(t *testing.T, s authn.TokenStore, want map[string]bool) {
	t.Helper()
	expectThere(t, s.Lookup, authn.ErrRefresh, want)
}

// expectThere checks what lookup finds, and that it returns missing for the rest.
func expectThere[T any](
	t *testing.T, lookup func(context.Context, string) (T, error), missing error, want map[string]bool,
) {
	t.Helper()
	for key, there := range want {
		_, err := lookup(t.Context(), key)
		if there && err != nil || !there && !errors.Is(err, missing) {
			t.Errorf("%s: got %v, want it there: %v", key, err, there)
		}
	}
}

// expectSubject compares subjects. Numbers in claims may come back as another type, never with other digits.
func expectSubject(t *testing.T, got, want authn.Subject) {
	t.Helper()
	gotClaims, err1 := json.Marshal(got.Claims)
	wantClaims, err2 := json.Marshal(want.Claims)
	if err := errors.Join(err1, err2); err != nil || string(gotClaims) != string(wantClaims) {
		t.Errorf("got the claims %s, %v\nwant %s", gotClaims, err, wantClaims)
	}
	got.Claims, want.Claims = nil, nil
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got the subject %+v\nwant %+v", got, want)
	}
}

func roundTrip(t *testing.T, s authn.TokenStore) {
	now := start()
	x := refreshToken("h1", "f1", "u1", now)
	x.Subject.Roles = []string{"admin", "user"}
	x.Subject.Scopes = []string{"orders:read"}
	x.Subject.ClientID = "web"
	x.Subject.Claims = map[string]any{
		"tenant":  "acme",
		"account": int64(9007199254740993),
		"nested":  map[string]any{"n": []any{json.Number("12345678901234567890.123")}},
	}
	create(t, s, x)
	got, err := s.Lookup(t.Context(), "h1")
	expectSubject(t, got.Subject, x.Subject)
	got.Subject = x.Subject
	if err != nil || !reflect.DeepEqual(got, x) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, x)
	}
	if err := s.Create(t.Context(), x); err == nil {
		t.Error("one hash was added twice")
	}
	has(t, s, map[string]bool{"h1": true, "h2": false})
}

func rotation(t *testing.T, s authn.TokenStore) {
	now := start()
	create(t, s, refreshToken("h1", "f1", "u1", now))
	next := refreshToken("h2", "f1", "u1", now)
	next.Subject.Roles = []string{"changed"}
	if err := s.Rotate(t.Context(), authn.Rotation{Old: "h1", Next: next, Now: now, Grace: time.Second}); err != nil {
		t.Fatal(err)
	}
	old, err := s.Lookup(t.Context(), "h1")
	if err != nil || !old.UsedAt.Equal(now) {
		t.Errorf("the old one: %+v, %v", old, err)
	}
	if got, err := s.Lookup(t.Context(), "h2"); err != nil || !reflect.DeepEqual(got, next) {
		t.Errorf("the next one: %+v, %v", got, err)
	}
	err = s.Rotate(t.Context(), authn.Rotation{Old: "none", Next: refreshToken("h3", "f1", "u1", now), Now: now})
	if !errors.Is(err, authn.ErrRefresh) || errors.Is(err, authn.ErrReused) {
		t.Errorf("an unknown token: %v", err)
	}
	has(t, s, map[string]bool{"h3": false})
}

func reuse(t *testing.T, s authn.TokenStore) {
	now := start()
	create(t, s, refreshToken("h1", "f1", "u1", now))
	create(t, s, refreshToken("other", "f2", "u1", now))
	rotate := func(old, next string, at time.Duration) error {
		return s.Rotate(
			t.Context(),
			authn.Rotation{Old: old, Next: refreshToken(next, "f1", "u1", now), Now: now.Add(at), Grace: 10 * time.Second},
		)
	}
	for i, c := range []struct {
		old, next string
		at        time.Duration
	}{{"h1", "h2", 0}, {"h1", "h3", 5 * time.Second}, {"h1", "h4", 10 * time.Second}, {"h2", "h5", 11 * time.Second}} {
		if err := rotate(c.old, c.next, c.at); err != nil {
			t.Fatalf("%d: within the grace: %v", i, err)
		}
	}
	if err := rotate("h1", "h6", 10*time.Second+time.Millisecond); !errors.Is(err, authn.ErrReused) ||
		!errors.Is(err, authn.ErrRefresh) {
		t.Fatalf("after the grace, which counts from the first use: %v", err)
	}
	has(t, s, map[string]bool{"h1": false, "h2": false, "h3": false, "h4": false, "h5": false, "h6": false, "other": true})
	if err := rotate("h5", "h7", 11*time.Second); !errors.Is(err, authn.ErrRefresh) {
		t.Errorf("a token of a revoked family: %v", err)
	}
}

// noGrace exchanges at a moment that no database stores in full: the first use of a token is no second one.
func noGrace(t *testing.T, s authn.TokenStore) {
	now := start().Add(987654321 * time.Nanosecond)
	create(t, s, refreshToken("h1", "f1", "u1", start()))
	if err := s.Rotate(t.Context(), authn.Rotation{Old: "h1", Next: refreshToken("h2", "f1", "u1", start()),
		Now: now}); err != nil {
		t.Fatalf("the first use, without grace: %v", err)
	}
	if err := s.Rotate(t.Context(), authn.Rotation{Old: "h1", Next: refreshToken("h3", "f1", "u1", start()),
		Now: now.Add(time.Millisecond)}); !errors.Is(err, authn.ErrReused) {
		t.Errorf("the second use, without grace: %v", err)
	}
}

func expiry(t *testing.T, s authn.TokenStore) {
	now := start()
	create(t, s, refreshToken("h1", "f1", "u1", now))
	for _, at := range []time.Duration{time.Hour, 2 * time.Hour} {
		err := s.Rotate(
			t.Context(),
			authn.Rotation{Old: "h1", Next: refreshToken("h2", "f1", "u1", now), Now: now.Add(at), Grace: time.Second},
		)
		if !errors.Is(err, authn.ErrRefresh) || errors.Is(err, authn.ErrReused) {
			t.Errorf("expired by %s: %v", at-time.Hour, err)
		}
	}
	has(t, s, map[string]bool{"h2": false})
}

func revocation(t *testing.T, s authn.TokenStore) {
	now := start()
	for _, x := range [][3]string{{"a1", "fa", "u1"}, {"a2", "fa", "u1"}, {"b1", "fb", "u1"}, {"c1", "fc", "u2"}} {
		create(t, s, refreshToken(x[0], x[1], x[2], now))
	}
	if err := s.RevokeFamily(t.Context(), "fa"); err != nil {
		t.Fatal(err)
	}
	has(t, s, map[string]bool{"a1": false, "a2": false, "b1": true, "c1": true})
	if err := errors.Join(s.RevokeFamily(t.Context(), "none"), s.RevokeSubject(t.Context(), "u1"),
		s.RevokeSubject(t.Context(), "none")); err != nil {
		t.Fatal(err)
	}
	has(t, s, map[string]bool{"b1": false, "c1": true})
}

func revokedIDs(t *testing.T, s authn.TokenStore) {
	now := start()
	for range 2 {
		if err := s.RevokeID(t.Context(), "j1", now.Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.RevokeID(t.Context(), "j1", now.Add(time.Minute)); err != nil { // never shortens
		t.Fatal(err)
	}
	if _, err := s.Purge(t.Context(), now.Add(2*time.Minute)); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]bool{"j1": true, "j2": false} {
		if got, err := s.Revoked(t.Context(), id); got != want || err != nil {
			t.Errorf("%s: revoked %v, %v", id, got, err)
		}
	}
}

func purge(t *testing.T, s authn.TokenStore) {
	now := start()
	create(t, s, refreshToken("h1", "f1", "u1", now))
	late := refreshToken("h2", "f1", "u1", now)
	late.ExpiresAt = now.Add(2 * time.Hour)
	create(t, s, late)
	if err := s.RevokeID(t.Context(), "j1", now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Purge(t.Context(), now.Add(time.Hour)); n != 2 || err != nil {
		t.Errorf("purged %d, %v", n, err)
	}
	has(t, s, map[string]bool{"h1": false, "h2": true})
	if got, _ := s.Revoked(t.Context(), "j1"); got {
		t.Error("an expired id is still there")
	}
}
