package authn

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sillar-go/sillar/internal/id"
	"github.com/sillar-go/sillar/internal/secret"
)

// Key is a signing key as a KeyStore holds it. It prints and marshals without its private part; stores use EncodeKeys.
type Key struct {
	// ID is the kid that tokens name.
	ID string
	// Algorithm is what the key signs with.
	Algorithm Algorithm
	// Private is the PKCS #8 form of the key, or the secret for HS256.
	Private secret.Value[[]byte]
	// ActiveFrom is when the key begins to sign. Before, it is published and verifies.
	ActiveFrom time.Time
	// ExpiresAt is when the key no longer verifies. Zero until a successor is known.
	ExpiresAt time.Time
}

// storedKey is the form of a Key in stores.
type storedKey struct {
	ID         string     `json:"kid"`
	Algorithm  Algorithm  `json:"alg"`
	Private    []byte     `json:"private"`
	ActiveFrom time.Time  `json:"active_from"`
	ExpiresAt  *time.Time `json:"expires_at,omitempty"`
}

// EncodeKeys returns keys as JSON, private parts included, for a KeyStore to keep.
func EncodeKeys(keys []Key) ([]byte, error) {
	stored := make([]storedKey, len(keys))
	for i, k := range keys {
		stored[i] = storedKey{ID: k.ID, Algorithm: k.Algorithm, Private: k.Private.Reveal(), ActiveFrom: k.ActiveFrom.UTC()}
		if !k.ExpiresAt.IsZero() {
			t := k.ExpiresAt.UTC()
			stored[i].ExpiresAt = &t
		}
	}
	return json.Marshal(stored)
}

// DecodeKeys is the inverse of EncodeKeys. Its errors hold nothing of data.
func DecodeKeys(data []byte) ([]Key, error) {
	var stored []storedKey
	if err := json.Unmarshal(data, &stored); err != nil {
		return nil, errors.New("authn: stored keys are not readable")
	}
	keys := make([]Key, len(stored))
	for i, s := range stored {
		keys[i] = Key{ID: s.ID, Algorithm: s.Algorithm, Private: secret.New(s.Private), ActiveFrom: s.ActiveFrom}
		if s.ExpiresAt != nil {
			keys[i].ExpiresAt = *s.ExpiresAt
		}
	}
	return keys, nil
}

// GenerateKey makes a key that signs from the given time.
func GenerateKey(alg Algorithm, activeFrom time.Time) (Key, error) {
	k := Key{ID: id.New(), Algorithm: alg, ActiveFrom: activeFrom.UTC()}
	var private any
	var err error
	switch alg {
	case EdDSA:
		_, private, err = ed25519.GenerateKey(rand.Reader)
	case ES256:
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case RS256:
		private, err = rsa.GenerateKey(rand.Reader, minRSABits)
	case HS256:
		s := make([]byte, sha256.Size)
		_, _ = rand.Read(s) // never fails
		k.Private = secret.New(s)
		return k, nil
	default:
		return Key{}, fmt.Errorf("authn: no key can be made for algorithm %q", alg)
	}
	if err != nil {
		return Key{}, fmt.Errorf("authn: make a key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return Key{}, fmt.Errorf("authn: make a key: %w", err)
	}
	k.Private = secret.New(der)
	return k, nil
}

// ready is a Key in the form that signs and verifies.
type ready struct {
	Key
	signer any // what the signing method takes
	public VerifyKey
}

// readyKeys are the keys that a KeySet uses. They are never changed.
type readyKeys struct {
	all    []*ready // by ActiveFrom
	public []VerifyKey
}

func newReadyKeys(all []*ready) *readyKeys {
	k := &readyKeys{all: all, public: make([]VerifyKey, len(all))}
	for i, r := range all {
		k.public[i] = r.public
	}
	return k
}

// verifies reports whether the key with the id may still verify at the given time.
func (k *readyKeys) verifies(id string, now time.Time) bool {
	return slices.ContainsFunc(k.all, func(r *ready) bool {
		return r.ID == id && (r.ExpiresAt.IsZero() || now.Before(r.ExpiresAt))
	})
}

func (k Key) ready() (*ready, error) {
	r := &ready{Key: k, public: VerifyKey{ID: k.ID, Algorithm: k.Algorithm}}
	if k.Algorithm == HS256 {
		r.signer, r.public.Public = k.Private.Reveal(), k.Private
		return r, r.public.Check()
	}
	private, err := x509.ParsePKCS8PrivateKey(k.Private.Reveal())
	if err != nil {
		return nil, fmt.Errorf("authn: stored key %q is not readable", k.ID)
	}
	s, ok := private.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("authn: stored key %q cannot sign", k.ID)
	}
	r.signer, r.public.Public = private, s.Public()
	return r, r.public.Check()
}
