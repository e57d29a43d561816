package authn_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sillar-go/sillar/authn"
)

// A user sees the logins that are alive, and ends one of them.
func TestSessionsOfAUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var revoked []authn.Revocation
		w := newWorld(t, authn.KeyConfig{}, authn.IssuerConfig{
			RefreshTTL: time.Hour,
			OnRevoke:   func(_ context.Context, r authn.Revocation) error { revoked = append(revoked, r); return nil },
		})
		login := func(user, device string) authn.TokenPair {
			p, err := w.issuer.Issue(t.Context(), authn.Subject{ID: user, ClientID: "web",
				Claims: map[string]any{"device": device}})
			must(t, err)
			return p
		}
		devices := func(user string) (list []string) {
			sessions, err := w.issuer.Sessions(t.Context(), user)
			must(t, err)
			for _, s := range sessions {
				device, _ := s.Subject.Claims["device"].(string)
				list = append(list, device)
			}
			return list
		}
		expect := func(user string, want ...string) {
			t.Helper()
			if got := devices(user); !slices.Equal(got, want) {
				t.Errorf("sessions of %s: got %q, want %q", user, got, want)
			}
		}
		phone := login("ana", "phone")
		time.Sleep(time.Minute)
		laptop := login("ana", "laptop")
		login("ben", "tablet")
		expect("ana", "laptop", "phone")
		expect("ben", "tablet")
		expect("none")

		time.Sleep(time.Minute)
		phone, err := w.issuer.Refresh(t.Context(), phone.RefreshToken, "web")
		must(t, err)
		expect("ana", "phone", "laptop")
		sessions, err := w.issuer.Sessions(t.Context(), "ana")
		must(t, err)
		if s := sessions[0]; !s.RefreshedAt.Equal(time.Now()) || !s.ExpiresAt.Equal(time.Now().Add(time.Hour)) ||
			s.Subject.ClientID != "web" {
			t.Errorf("got %+v, want the client and the times of the refresh", s)
		}

		must(t, w.issuer.RevokeSession(t.Context(), "ben", sessions[0].ID)) // not his: no effect
		must(t, w.issuer.RevokeSession(t.Context(), "ana", "none"))
		expect("ana", "phone", "laptop")
		if len(revoked) > 0 {
			t.Errorf("got %+v, want no revocation", revoked)
		}
		must(t, w.issuer.RevokeSession(t.Context(), "ana", sessions[0].ID))
		expect("ana", "laptop")
		if len(revoked) != 1 || revoked[0].Family != sessions[0].ID || revoked[0].Subject != "ana" {
			t.Errorf("got the revocations %+v, want that of the phone", revoked)
		}
		if _, err := w.issuer.Refresh(t.Context(), phone.RefreshToken, "web"); !errors.Is(err, authn.ErrRefresh) {
			t.Errorf("the ended session: got %v, want ErrRefresh", err)
		}
		if _, err = w.issuer.Refresh(t.Context(), laptop.RefreshToken, "web"); err != nil {
			t.Errorf("the other session: %v", err)
		}
		time.Sleep(time.Hour)
		expect("ana")
	})
}

// The time of a login survives its refreshes. It is in the id of the family, which takes no time from synctest.
func TestSessionKeepsTheTimeOfItsLogin(t *testing.T) {
	w := newWorld(t, authn.KeyConfig{}, authn.IssuerConfig{})
	before := time.Now().Truncate(time.Millisecond)
	pair := w.issue(t)
	after := time.Now()
	for range 2 {
		sessions, err := w.issuer.Sessions(t.Context(), "u1")
		must(t, err)
		if len(sessions) != 1 || sessions[0].CreatedAt.Before(before) || sessions[0].CreatedAt.After(after) {
			t.Errorf("got %+v, want one login between %s and %s", sessions, before, after)
		}
		pair, err = w.issuer.Refresh(t.Context(), pair.RefreshToken, "")
		must(t, err)
	}
}
