package secrets_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sillar-go/sillar/authn/secrets"
)

type fixed struct{}

func (fixed) Get(_ context.Context, ref string) (secrets.Secret, error) { return secrets.New(ref), nil }

func TestResolverReadsEachSource(t *testing.T) {
	t.Setenv("SECRETS_TEST", "hush")
	t.Setenv("SECRETS_EMPTY", "")
	path := filepath.Join(t.TempDir(), "s")
	if err := os.WriteFile(path, []byte("two\nlines\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	checkReferences(t, path)
	none := secrets.Must(secrets.NewResolver(secrets.Config{Sources: map[string]secrets.Source{"env": nil}}))
	if _, err := none.Get(t.Context(), "env:SECRETS_TEST"); !errors.Is(err, secrets.ErrReference) {
		t.Errorf("a source that was taken away: %v", err)
	}
	if s, err := secrets.Must(secrets.NewResolver(secrets.Config{AllowPlain: true})).Get(t.Context(),
		"plain"); err != nil || s.Reveal() != "plain" {
		t.Errorf("plain: %v", err)
	}
}

// checkReferences resolves a reference of each kind.
func checkReferences(t *testing.T, path string) {
	t.Helper()
	empty := filepath.Join(t.TempDir(), "e")
	if err := os.WriteFile(empty, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := secrets.Must(secrets.NewResolver(secrets.Config{Sources: map[string]secrets.Source{"vault": fixed{}}}))
	for ref, want := range map[string]string{
		"env:SECRETS_TEST": "hush", "file:" + path: "two\nlines", "file://" + path: "two\nlines",
		"vault://a/b#c": "vault://a/b#c",
	} {
		s, err := r.Get(t.Context(), ref)
		if err != nil || s.Reveal() != want {
			t.Errorf("%s: %q, %v", ref, s.Reveal(), err)
		}
		if p := fmt.Sprintf("%v %+v %#v", s, s, s); strings.Contains(p, want) {
			t.Errorf("%s prints %s", ref, p)
		}
	}
	for ref, want := range map[string]error{
		"env:SECRETS_EMPTY": secrets.ErrNotFound, "env:SECRETS_NONE": secrets.ErrNotFound, "env:": secrets.ErrReference,
		"env:A=hush":      secrets.ErrReference,
		"file:/none/hush": secrets.ErrNotFound, "file:": secrets.ErrReference, "file:" + empty: secrets.ErrNotFound,
		"hush": secrets.ErrReference, "hush://x": secrets.ErrReference, "": secrets.ErrReference,
	} {
		_, err := r.Get(t.Context(), ref)
		if !errors.Is(err, want) {
			t.Errorf("%q: %v", ref, err)
		}
		if strings.Contains(fmt.Sprint(err), "hush") {
			t.Errorf("%q: the error shows the reference: %v", ref, err)
		}
	}
}
