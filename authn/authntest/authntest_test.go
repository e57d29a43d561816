package authntest_test

import (
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/authn/authntest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemoryKeys(t *testing.T) {
	authntest.RunKeys(t, func(*testing.T) (authn.KeyStore, func() authn.KeyStore) { return authn.NewMemoryKeys(), nil })
}

func TestFileKeys(t *testing.T) {
	authntest.RunKeys(t, func(t *testing.T) (authn.KeyStore, func() authn.KeyStore) {
		path := filepath.Join(t.TempDir(), "keys.json")
		return authn.NewFileKeys(path), func() authn.KeyStore { return authn.NewFileKeys(path) }
	})
}

func TestMemoryTokens(t *testing.T) {
	authntest.RunTokens(t, func(*testing.T) authn.TokenStore { return authn.NewMemoryTokens() })
}

func TestMemoryAPIKeys(t *testing.T) {
	authntest.RunAPIKeys(t, func(*testing.T) authn.APIKeyStore { return authn.NewMemoryAPIKeys() })
}
