package users

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sillar-go/sillar/authn"
)

// Logins that have expired are forgotten within the hour, those that live are not.
func TestPurge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tokens, now := authn.NewMemoryTokens(), time.Now()
		for hash, life := range map[string]time.Duration{"short": 30 * time.Minute, "long": 3 * time.Hour} {
			if err := tokens.Create(t.Context(), authn.Grant{Hash: hash, Family: hash, Subject: authn.Subject{ID: "u"}, ExpiresAt: now.Add(life)}); err != nil {
				t.Fatal(err)
			}
		}
		ctx, stop := context.WithCancel(t.Context())
		go purge(ctx, tokens, slog.New(slog.DiscardHandler))
		time.Sleep(61 * time.Minute)
		for hash, there := range map[string]bool{"short": false, "long": true} {
			if _, err := tokens.Lookup(t.Context(), hash); errors.Is(err, authn.ErrRefresh) == there {
				t.Errorf("%s: %v", hash, err)
			}
		}
		stop()
		synctest.Wait()
	})
}
