package authntest

import (
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/sillar-go/sillar/authn"
)

// strictRaces lets replicas, whose clocks differ by up to 10 s, exchange one token at once without a grace: in each
// race exactly one wins, and the first of the others revokes what it won.
func strictRaces(t *testing.T, s authn.TokenStore) {
	now := start()
	for race := range 30 {
		family := fmt.Sprint("race", race)
		create(t, s, refreshToken(family+"-0", family, "u1", now))
		const replicas = 4
		errs := make([]error, replicas)
		var wg sync.WaitGroup
		for i := range replicas {
			wg.Go(func() {
				clock := now.Add(time.Duration((i+race)%replicas-1) * 10 * time.Second)
				errs[i] = s.Rotate(t.Context(), authn.Rotation{
					Old: family + "-0", Next: refreshToken(fmt.Sprint(family, "-n", i), family, "u1", now), Now: clock,
				})
			})
		}
		wg.Wait()
		won, reused := 0, 0
		for _, err := range errs {
			switch {
			case err == nil:
				won++
			case errors.Is(err, authn.ErrReused):
				reused++
			case !errors.Is(err, authn.ErrRefresh):
				t.Errorf("race %d: %v", race, err)
			}
		}
		if won != 1 || reused != 1 {
			t.Errorf("race %d: %d exchanges won and %d found a reuse, want 1 and 1: %v", race, won, reused, errs)
		}
		for i := range replicas {
			has(t, s, map[string]bool{fmt.Sprint(family, "-n", i): false})
		}
	}
}

// revokeAgainstRotate lets no exchange slip past a revocation.
func revokeAgainstRotate(t *testing.T, s authn.TokenStore) {
	now := start()
	for round := range 10 {
		r := string(rune('a' + round))
		create(t, s, refreshToken(r+"0", r, "u"+r, now))
		var wg sync.WaitGroup
		var rotated, revoked error
		both := []func(){func() {
			rotated = s.Rotate(t.Context(), authn.Rotation{Old: r + "0", Next: refreshToken(r+"1", r, "u"+r, now), Now: now})
		}, func() {
			if round%2 == 0 {
				revoked = s.RevokeSubject(t.Context(), "u"+r)
			} else {
				revoked = s.RevokeFamily(t.Context(), r)
			}
		}}
		if round%4 > 1 { // the scheduler likes to begin with the last
			both[0], both[1] = both[1], both[0]
		}
		for _, f := range both {
			wg.Go(f)
		}
		wg.Wait()
		if revoked != nil || rotated != nil && !errors.Is(rotated, authn.ErrRefresh) {
			t.Fatalf("revoke: %v, rotate: %v", revoked, rotated)
		}
		has(t, s, map[string]bool{r + "0": false, r + "1": false})
	}
}

// sessions lists the newest token of each login of one subject.
func sessions(t *testing.T, s authn.TokenStore) {
	now := start()
	web := refreshToken("a1", "fa", "u1", now)
	web.Subject.ClientID, web.Subject.Claims = "web", map[string]any{"device": "phone"}
	create(t, s, web)
	short := refreshToken("b1", "fb", "u1", now.Add(time.Second))
	short.ExpiresAt = now.Add(time.Minute)
	create(t, s, short)
	create(t, s, refreshToken("c1", "fc", "u2", now))
	expect := func(subject string, at time.Time, want map[string]string) {
		t.Helper()
		tokens, err := s.Sessions(t.Context(), subject, at)
		got := map[string]string{}
		for _, x := range tokens {
			if x.Subject.ID != subject || got[x.Family] != "" {
				t.Errorf("a session of %q in the list of %q, or one session twice: %q", x.Subject.ID, subject, x.Family)
			}
			got[x.Family] = x.Hash
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("sessions of %s: got %v, %v, want %v", subject, got, err, want)
		}
	}
	expect("u1", now, map[string]string{"fa": "a1", "fb": "b1"})
	expect("u2", now, map[string]string{"fc": "c1"})
	expect("none", now, map[string]string{})
	expect("u1", now.Add(time.Minute), map[string]string{"fa": "a1"})

	for i, grace := range []time.Duration{time.Hour, time.Hour, 0} { // twice from a1, then from the newer one
		at := now.Add(time.Duration(i+1) * time.Second)
		next := refreshToken(fmt.Sprint("a", i+2), "fa", "u1", at)
		next.Subject.Roles = []string{"changed"}
		old := []string{"a1", "a1", "a3"}[i]
		if err := s.Rotate(t.Context(), authn.Rotation{Old: old, Next: next, Now: at, Grace: grace}); err != nil {
			t.Fatal(err)
		}
		expect("u1", at, map[string]string{"fa": next.Hash, "fb": "b1"})
	}
	if err := s.RevokeFamily(t.Context(), "fa"); err != nil {
		t.Fatal(err)
	}
	expect("u1", now, map[string]string{"fb": "b1"})
	tokens, err := s.Sessions(t.Context(), "u1", now)
	if err != nil || len(tokens) != 1 || !reflect.DeepEqual(tokens[0], short) {
		t.Errorf("got %+v, %v\nwant %+v", tokens, err, short)
	}
}
