package authn_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/sillar-go/sillar/authn"
)

// cheap keeps the tests fast.
var cheap = authn.PasswordConfig{MemoryKiB: 64, Passes: 1}

func TestPasswordHashesVerifyAndUpgrade(t *testing.T) {
	p := authn.Must(authn.NewPasswords(cheap))
	ctx := t.Context()
	hash, err := p.Hash(ctx, "correct horse")
	must(t, err)
	if up, err := p.Verify(ctx, hash, "correct horse"); up != "" || err != nil {
		t.Errorf("%q, %v", up, err)
	}
	old, err := bcrypt.GenerateFromPassword([]byte("correct horse"), bcrypt.MinCost)
	must(t, err)
	python := "$2b" + string(old[3:])
	other, err := authn.Must(authn.NewPasswords(authn.PasswordConfig{MemoryKiB: 128, Passes: 1})).Hash(ctx,
		"correct horse")
	must(t, err)
	for _, h := range []string{string(old), python, other} {
		up, err := p.Verify(ctx, h, "correct horse")
		if err != nil || !strings.HasPrefix(up, "$argon2id$v=19$m=64,t=1,p=1$") {
			t.Fatalf("%s: %q, %v", h, up, err)
		}
		if again, err := p.Verify(ctx, up, "correct horse"); again != "" || err != nil {
			t.Errorf("the upgrade of %s: %v", h, err)
		}
	}
	for _, h := range []string{hash, string(old), other, ""} {
		if up, err := p.Verify(ctx, h, "wrong"); !errors.Is(err, authn.ErrPassword) || up != "" {
			t.Errorf("%q: %q, %v", h, up, err)
		}
	}
	if _, err := p.Verify(ctx, "", ""); !errors.Is(err, authn.ErrPassword) {
		t.Errorf("an empty password of an unknown user: %v", err)
	}
	for _, h := range []string{"x", "$argon2i$v=19$m=64,t=1,p=1$AAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA",
		"$2b$31$" + strings.Repeat("a", 53), "$argon2id$v=19$m=4294967295,t=1,p=1$AAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA",
		"$argon2id$v=19$m=64,t=1,p=1$AAAAAAAAAAA$", "$argon2id$v=19$m=64,t=0,p=1$AAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA", "$2b$",
		"$argon2id$v=19$t=1,m=64,p=1$AAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA"} {
		if _, err := p.Verify(ctx, h, "x"); !errors.Is(err, authn.ErrHash) {
			t.Errorf("%s: %v", h, err)
		}
	}
}

func TestPasswordsAreNeverCut(t *testing.T) {
	cfg := cheap
	cfg.MaxLength = 72
	p := authn.Must(authn.NewPasswords(cfg))
	cfg.MaxLength = 1024
	long := authn.Must(authn.NewPasswords(cfg))
	ctx := t.Context()
	p72, p73 := strings.Repeat("a", 72), strings.Repeat("a", 73)
	b, err := bcrypt.GenerateFromPassword([]byte(p72), bcrypt.MinCost)
	must(t, err)
	argon, err := p.Hash(ctx, p72)
	must(t, err)
	for _, hash := range []string{string(b), argon} {
		if _, err := p.Verify(ctx, hash, p73); !errors.Is(err, authn.ErrPasswordTooLong) {
			t.Errorf("%.8s, 73 bytes: %v", hash, err)
		}
		if _, err := p.Verify(ctx, hash, p72); err != nil {
			t.Errorf("%.8s, 72 bytes: %v", hash, err)
		}
	}
	if _, err := p.Hash(ctx, p73); !errors.Is(err, authn.ErrPasswordTooLong) {
		t.Errorf("73 bytes are hashed: %v", err)
	}
	if _, err := long.Verify(ctx, string(b), p73); !errors.Is(err, authn.ErrPasswordTooLong) {
		t.Errorf("bcrypt, 73 bytes, where more are allowed: %v", err)
	}
	h, err := long.Hash(ctx, p73+"b")
	must(t, err)
	if _, err := long.Verify(ctx, h, p73+"c"); !errors.Is(err, authn.ErrPassword) {
		t.Errorf("argon2id differs behind 72 bytes: %v", err)
	}
	if _, err := long.Hash(ctx, strings.Repeat("a", 1025)); !errors.Is(err, authn.ErrPasswordTooLong) {
		t.Errorf("1025 bytes: %v", err)
	}
}

func TestPasswordsOfAllScripts(t *testing.T) {
	p := authn.Must(authn.NewPasswords(cheap))
	ctx := t.Context()
	composed, decomposed := "caf\u00e9", "cafe\u0301"
	for _, c := range [][2]string{{composed, decomposed}, {decomposed, composed}, {strings.Repeat("\u6f22", 250),
		strings.Repeat("\u6f22", 250)}} {
		hash, err := p.Hash(ctx, c[0])
		must(t, err)
		if up, err := p.Verify(ctx, hash, c[1]); up != "" || err != nil {
			t.Errorf("%.10q against %.10q: %q, %v", c[0], c[1], up, err)
		}
	}
	raw, err := bcrypt.GenerateFromPassword([]byte(decomposed), bcrypt.MinCost) // by a program that does not normalise
	must(t, err)
	up, err := p.Verify(ctx, string(raw), decomposed)
	if err != nil || up == "" {
		t.Fatalf("a hash of the decomposed form: %q, %v", up, err)
	}
	if _, err := p.Verify(ctx, up, composed); err != nil {
		t.Errorf("the upgraded hash against the composed form: %v", err)
	}
}

// A failed login takes the same time for users with an expensive hash and for users who do not exist.
func TestUnknownUserTakesTheTimeOfTheSlowestHash(t *testing.T) {
	slow, err := bcrypt.GenerateFromPassword([]byte("x"), 7)
	must(t, err)
	foreign, err := authn.Must(authn.NewPasswords(authn.PasswordConfig{MemoryKiB: 8 << 10, Passes: 2})).Hash(t.Context(),
		"x")
	must(t, err)
	for name, c := range map[string]struct {
		cfg  authn.PasswordConfig
		hash string
		once bool // the form has been seen before
	}{
		"bcrypt, stated": {authn.PasswordConfig{MemoryKiB: 64, Passes: 1, BcryptCost: 7}, string(slow), false},
		"bcrypt, learnt": {authn.PasswordConfig{MemoryKiB: 64, Passes: 1}, string(slow), true},
		"argon2, learnt": {authn.PasswordConfig{MemoryKiB: 64, Passes: 1}, foreign, true},
	} {
		p := authn.Must(authn.NewPasswords(c.cfg))
		if c.once {
			_, _ = p.Verify(t.Context(), c.hash, "y")
		}
		known, unknown := time.Hour, time.Hour
		// Without the wait they differ by a factor of a hundred.
		differ := func() bool { return unknown < known*2/3 || known < unknown*2/3 }
		for n := 0; n < 4 || differ() && n < 50; n++ { // the least of each comes through on a busy machine, too
			for h, least := range map[string]*time.Duration{"": &unknown, c.hash: &known} {
				start := time.Now()
				_, _ = p.Verify(t.Context(), h, "y")
				*least = min(*least, time.Since(start))
			}
		}
		if differ() {
			t.Errorf("%s: known %s, unknown %s", name, known, unknown)
		}
	}
}

func TestPasswordsWaitTheirTurn(t *testing.T) {
	p := authn.Must(authn.NewPasswords(authn.PasswordConfig{MemoryKiB: 16 << 10, Passes: 4, Concurrency: 1}))
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				_, _ = p.Hash(context.Background(), "x")
			}
		}
	})
	waited := false
	for range 100 {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Millisecond)
		_, err := p.Hash(ctx, "x")
		cancel()
		if waited = errors.Is(err, context.DeadlineExceeded); waited {
			break
		}
	}
	close(done)
	wg.Wait()
	if !waited {
		t.Error("no hash ever waited for the only place")
	}
}

func TestUnknownUserTakesTheSameTime(t *testing.T) {
	p := authn.Must(authn.NewPasswords(authn.PasswordConfig{MemoryKiB: 8 << 10, Passes: 2}))
	hash, err := p.Hash(t.Context(), "x")
	must(t, err)
	known, unknown := time.Hour, time.Hour
	for range 6 { // in turns, so that a busy machine slows both
		for h, least := range map[string]*time.Duration{hash: &known, "": &unknown} {
			start := time.Now()
			_, _ = p.Verify(t.Context(), h, "y")
			*least = min(*least, time.Since(start))
		}
	}
	if unknown < known/3 || known < unknown/3 { // without a hash it would be a thousandth
		t.Errorf("known %s, unknown %s", known, unknown)
	}
}
