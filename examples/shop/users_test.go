package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/sillar-go/sillar/examples/shop/internal/shopclient"
)

// A production shop begins with an administrator whose password is a secret of its own, and with no other user. Another
// password, later, does not change it.
func TestFirstAdministrator(t *testing.T) {
	dir := t.TempDir()
	for _, password := range []string{"the first password", "another password"} {
		t.Run(password, func(t *testing.T) {
			t.Setenv("FIRST", password)
			h := openShopWith(t, "--data", dir, "--seed=false", "--first-admin-password", "env:FIRST")
			login := func(name, password string) error {
				_, err := shopclient.Login(t.Context(), h.URL(), name, password, "test")
				return err
			}
			if err := login("admin", "the first password"); err != nil {
				t.Error(err)
			}
			for _, c := range [][2]string{{"admin", "admin-password"}, {"ana", "ana-password"}, {"admin", "another password"}} {
				if login(c[0], c[1]) == nil {
					t.Errorf("%s can log in with %q", c[0], c[1])
				}
			}
		})
	}
	o := &options{}
	flags := pflag.NewFlagSet("shop", pflag.ContinueOnError)
	o.register(flags)
	if err := flags.Parse([]string{"--port-offset", "-1", "--data", t.TempDir(), "--first-admin-password",
		"short"}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := newAllInOne(ctx, o); err == nil || !strings.Contains(err.Error(), "user admin: ") ||
		!strings.Contains(err.Error(), "password: want 8 to 72 bytes") || strings.Contains(err.Error(), "short") {
		t.Errorf("a password that is too short: %v", err)
	}
}
