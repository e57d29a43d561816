package main

import (
	"os"
	"path/filepath"
	"testing"
)

// Manifests name the files of optional secrets whether they exist or not.
func TestOptionalSecretsMayHaveNoFile(t *testing.T) {
	dir := t.TempDir()
	open := func(admin, smtp string) (*options, string, error) {
		o := &options{data: dir, broker: "memory:", log: "none", logLevel: "info", admin: admin, smtp: smtp}
		p, err := o.open(t.Context(), "shop", true, "none")
		t.Cleanup(func() { _ = p.Close() })
		return o, p.config.SMTP, err
	}
	if o, smtp, err := open("file:"+filepath.Join(dir, "no-admin"), "file:"+filepath.Join(dir, "no-smtp")); err != nil ||
		o.admin != "" || smtp != "" {
		t.Errorf("without the files: admin %q, SMTP %q, %v; want none", o.admin, smtp, err)
	}
	file := filepath.Join(dir, "admin")
	if err := os.WriteFile(file, []byte("a-password"), 0o600); err != nil {
		t.Fatal(err)
	}
	if o, _, err := open("file:"+file, ""); err != nil || o.admin != "a-password" {
		t.Errorf("with the file: admin %q, %v", o.admin, err)
	}
	if _, _, err := open("env:NO_SUCH_VARIABLE", ""); err == nil {
		t.Error("a variable that does not exist is no error")
	}
}
