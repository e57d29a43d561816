package authn

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	_ "crypto/sha512" // links the hash of the 384 and 512 algorithms
	"encoding/json"
	"fmt"
	"log/slog"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sillar-go/sillar/internal/secret"
)

// Algorithm is a JWS algorithm (RFC 7518). It belongs to the key; what a token says about it is only compared.
type Algorithm string

// The algorithms. A KeySet issues EdDSA, ES256, RS256 and HS256; the others are verified only, for tokens of other
// issuers.
const (
	EdDSA Algorithm = "EdDSA"
	HS256 Algorithm = "HS256"
	RS256 Algorithm = "RS256"
	RS384 Algorithm = "RS384"
	RS512 Algorithm = "RS512"
	PS256 Algorithm = "PS256"
	PS384 Algorithm = "PS384"
	PS512 Algorithm = "PS512"
	ES256 Algorithm = "ES256"
	ES384 Algorithm = "ES384"
	ES512 Algorithm = "ES512"
)

// methods verify signatures, the PSS ones apart: see verify.
var methods = map[Algorithm]jwt.SigningMethod{
	EdDSA: jwt.SigningMethodEdDSA, HS256: jwt.SigningMethodHS256,
	RS256: jwt.SigningMethodRS256, RS384: jwt.SigningMethodRS384, RS512: jwt.SigningMethodRS512,
	ES256: jwt.SigningMethodES256, ES384: jwt.SigningMethodES384, ES512: jwt.SigningMethodES512,
}

// pssHashes are the hashes of the PSS algorithms.
var pssHashes = map[Algorithm]crypto.Hash{PS256: crypto.SHA256, PS384: crypto.SHA384, PS512: crypto.SHA512}

// curves are the curves of the ECDSA algorithms.
var curves = map[Algorithm]string{ES256: "P-256", ES384: "P-384", ES512: "P-521"}

// minRSABits is the shortest RSA modulus that is used (RFC 7518).
const minRSABits = 2048

// VerifyKey is a key that verifies signatures. It prints, logs and marshals without its secret.
type VerifyKey struct {
	// ID is the key's id (kid). It may be empty, see FindKeys.
	ID string
	// Algorithm is the only one that this key verifies.
	Algorithm Algorithm
	// Public is an ed25519.PublicKey, *rsa.PublicKey or *ecdsa.PublicKey. For HS256 it is the shared secret, a []byte;
	// a KeySet holds it in a form that does not print.
	Public any
}

// hmacSecret is a shared secret that fmt cannot reach.
type hmacSecret = secret.Value[[]byte]

// shared returns the shared secret of an HS256 key.
func (k VerifyKey) shared() ([]byte, bool) {
	switch s := k.Public.(type) {
	case []byte:
		return s, true
	case hmacSecret:
		return s.Reveal(), true
	}
	return nil, false
}

// redacted is the form in which a key prints.
func (k VerifyKey) redacted() string {
	public := secret.Redacted
	if _, isSecret := k.shared(); !isSecret {
		public = fmt.Sprintf("%T", k.Public)
	}
	return fmt.Sprintf("{ID:%q Algorithm:%s Public:%s}", k.ID, k.Algorithm, public)
}

// Format implements fmt.Formatter without the key.
func (k VerifyKey) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(k.redacted())) }

// LogValue implements slog.LogValuer without the key.
func (k VerifyKey) LogValue() slog.Value { return slog.StringValue(k.redacted()) }

// MarshalJSON implements json.Marshaler without the key. KeySet.JWKS publishes keys.
func (k VerifyKey) MarshalJSON() ([]byte, error) { return json.Marshal(k.redacted()) }

// Check reports a key whose type does not fit its algorithm, or that is too short for it (ErrWeakKey).
func (k VerifyKey) Check() error {
	fits := false
	switch pub := k.Public.(type) {
	case ed25519.PublicKey:
		fits = k.Algorithm == EdDSA && len(pub) == ed25519.PublicKeySize
	case *ecdsa.PublicKey:
		fits = pub != nil && pub.Curve != nil && curves[k.Algorithm] == pub.Curve.Params().Name
	case *rsa.PublicKey:
		switch k.Algorithm {
		case RS256, RS384, RS512, PS256, PS384, PS512:
			fits = pub != nil && pub.N != nil
		}
		if fits && pub.N.BitLen() < minRSABits {
			return fmt.Errorf("%w: RSA with %d bits, %d are needed", ErrWeakKey, pub.N.BitLen(), minRSABits)
		}
	default:
		var s []byte
		s, fits = k.shared()
		fits = fits && k.Algorithm == HS256
		if fits && len(s) < sha256.Size {
			return fmt.Errorf("%w: a secret of %d bytes, HS256 needs %d", ErrWeakKey, len(s), sha256.Size)
		}
	}
	if !fits {
		return fmt.Errorf("authn: a %T is no key for %q", k.Public, k.Algorithm)
	}
	return nil
}

// verify checks a signature. The key has been checked when it entered its KeySource.
func (k VerifyKey) verify(signed string, sig []byte) error {
	if hash, ok := pssHashes[k.Algorithm]; ok { // golang-jwt accepts any length of salt, RFC 7518 only the hash's
		pub, ok := k.Public.(*rsa.PublicKey)
		if !ok {
			return refuse("signature")
		}
		h := hash.New()
		h.Write([]byte(signed))
		options := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}
		if rsa.VerifyPSS(pub, hash, h.Sum(nil), sig, options) != nil {
			return refuse("signature")
		}
		return nil
	}
	public := k.Public
	if s, ok := k.shared(); ok {
		public = s
	}
	m, ok := methods[k.Algorithm]
	if !ok || m.Verify(signed, sig, public) != nil {
		return refuse("signature")
	}
	return nil
}

// equal reports whether two keys that passed Check are the same.
func (k VerifyKey) equal(other VerifyKey) bool {
	if k.Algorithm != other.Algorithm {
		return false
	}
	if a, ok := k.shared(); ok {
		b, ok := other.shared()
		return ok && string(a) == string(b)
	}
	if a, ok := k.Public.(*rsa.PublicKey); ok && a == other.Public { // the common case, without comparing numbers
		return true
	}
	a, ok := k.Public.(interface{ Equal(crypto.PublicKey) bool })
	return ok && a.Equal(other.Public)
}
