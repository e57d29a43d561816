package authn_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sillar-go/sillar/authn"
)

func TestExpiryAndRevocation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, authn.KeyConfig{}, authn.IssuerConfig{TTL: time.Minute})
		a, b := w.issue(t).AccessToken, w.issue(t).AccessToken
		for _, token := range []string{a, b} {
			if _, err := w.v.Verify(t.Context(), token); err != nil {
				t.Fatal(err)
			}
		}
		must(t, w.issuer.Revoke(t.Context(), a))
		if _, err := w.v.Verify(t.Context(), a); !errors.Is(err, authn.ErrRevoked) || !errors.Is(err, authn.ErrToken) {
			t.Errorf("a revoked token, in the cache: %v", err)
		}
		time.Sleep(89 * time.Second)
		if _, err := w.v.Verify(t.Context(), b); err != nil {
			t.Errorf("within the leeway: %v", err)
		}
		time.Sleep(2 * time.Second)
		if _, err := w.v.Verify(t.Context(), b); !errors.Is(err, authn.ErrExpired) {
			t.Errorf("past the leeway: %v", err)
		}
		must(t, w.issuer.Revoke(t.Context(), b))
		must(t, w.issuer.Revoke(t.Context(), "nonsense"))
	})
}

func TestRefreshRotatesAndReuseRevokesTheFamily(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reported []authn.Revocation
		roles := []string{"user"}
		w := newWorld(t, authn.KeyConfig{}, authn.IssuerConfig{
			OnRevoke:  func(_ context.Context, r authn.Revocation) error { reported = append(reported, r); return nil },
			OnRefresh: func(_ context.Context, s authn.Subject) (authn.Subject, error) { s.Roles = roles; return s, nil },
		})
		first := w.issue(t, "user")
		if first.RefreshToken == "" {
			t.Fatal("no refresh token")
		}
		roles = []string{"admin"}
		second, err := w.issuer.Refresh(t.Context(), first.RefreshToken, "")
		must(t, err)
		if u, err := w.v.Verify(t.Context(), second.AccessToken); err != nil || !u.HasAnyRole("admin") {
			t.Errorf("roles after the refresh: %+v, %v", u, err)
		}
		time.Sleep(9 * time.Second)
		tab, err := w.issuer.Refresh(t.Context(), first.RefreshToken, "")
		must(t, err) // a parallel tab
		time.Sleep(2 * time.Second)
		if _, err := w.issuer.Refresh(t.Context(), first.RefreshToken, ""); !errors.Is(err, authn.ErrReused) {
			t.Fatalf("reuse after the grace: %v", err)
		}
		for name, token := range map[string]string{"second": second.RefreshToken, "tab": tab.RefreshToken,
			"first": first.RefreshToken} {
			if _, err := w.issuer.Refresh(t.Context(), token, ""); !errors.Is(err, authn.ErrRefresh) {
				t.Errorf("%s token of a revoked family: %v", name, err)
			}
		}
		if len(reported) != 1 || reported[0].Family == "" || reported[0].Subject != "u1" {
			t.Errorf("got the revocations %+v", reported)
		}

		pair := w.issue(t)
		for range 8 { // used each 13 days of its 14, until the login ends at 90
			time.Sleep(13 * 24 * time.Hour)
			if next, err := w.issuer.Refresh(t.Context(), pair.RefreshToken, ""); err == nil {
				pair = next
			} else if !errors.Is(err, authn.ErrRefresh) {
				t.Fatal(err)
			} else {
				pair.RefreshToken = ""
				break
			}
		}
		if pair.RefreshToken != "" {
			t.Error("the login never ends")
		}
		pair = w.issue(t)
		must(t, w.issuer.Revoke(t.Context(), pair.RefreshToken))
		if _, err := w.issuer.Refresh(t.Context(), pair.RefreshToken, ""); !errors.Is(err, authn.ErrRefresh) {
			t.Errorf("after Revoke: %v", err)
		}
	})
}
