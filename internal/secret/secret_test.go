package secret_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/sillar-go/sillar/internal/secret"
)

type config struct {
	User     string
	Password secret.Value[string]
	inner    secret.Value[[]byte]
}

func TestSecretIsNeverPrinted(t *testing.T) {
	const password = "hunter2"
	c := config{User: "ana", Password: secret.New(password), inner: secret.New([]byte(password))}
	if c.Password.Reveal() != password || string(c.inner.Reveal()) != password {
		t.Fatal("Reveal does not return what was put in")
	}
	var out bytes.Buffer
	for _, v := range []any{c, &c, []config{c}, map[string]config{"k": c}, c.Password, &c.Password, any(c.inner),
		fmt.Errorf("wrapped: %v", c.Password)} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		_ = json.NewEncoder(&out).Encode(v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "v", v)
		slog.New(slog.NewTextHandler(&out, nil)).Info("m", "v", v)
	}
	for _, leak := range []string{password, "68756e74657232", "104 117 110", "aHVudGVyMg"} {
		if strings.Contains(out.String(), leak) {
			t.Errorf("the output holds %q", leak)
		}
	}
	if !strings.Contains(out.String(), secret.Redacted) {
		t.Error("the output does not say that something was left out")
	}
}

func TestZeroValueIsNotAnEmptySecret(t *testing.T) {
	var v secret.Value[string]
	if !v.IsZero() || v.Reveal() != "" || secret.New("").IsZero() {
		t.Fatal("a zero Value is not distinguished from one that holds an empty secret")
	}
}
