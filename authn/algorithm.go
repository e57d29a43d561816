package authn

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"

	"github.com/golang-jwt/jwt/v5"
)

// Algorithm is a JWS algorithm. It belongs to the key; what a token says about it is only compared.
type Algorithm string

// The algorithms. PS256 is verified but not issued.
const (
	EdDSA Algorithm = "EdDSA"
	HS256 Algorithm = "HS256"
	RS256 Algorithm = "RS256"
	ES256 Algorithm = "ES256"
	PS256 Algorithm = "PS256"
)

// minRSABits is the shortest RSA modulus that is used (RFC 7518).
const minRSABits = 2048

// VerifyKey is a key that verifies signatures.
type VerifyKey struct {
	// ID is the key's id (kid). It may be empty where a Set holds a single key.
	ID string
	// Algorithm is the only one that this key verifies.
	Algorithm Algorithm
	// Public is an ed25519.PublicKey, *rsa.PublicKey or *ecdsa.PublicKey, or a []byte, the secret, for HS256.
	Public any
}

// Check reports a key whose type does not fit its algorithm, or that is too short for it (ErrWeakKey).
func (k VerifyKey) Check() error {
	fits := false
	switch pub := k.Public.(type) {
	case ed25519.PublicKey:
		fits = k.Algorithm == EdDSA && len(pub) == ed25519.PublicKeySize
	case *ecdsa.PublicKey:
		fits = k.Algorithm == ES256 && pub != nil && pub.Curve == elliptic.P256()
	case *rsa.PublicKey:
		fits = (k.Algorithm == RS256 || k.Algorithm == PS256) && pub != nil && pub.N != nil
		if fits && pub.N.BitLen() < minRSABits {
			return fmt.Errorf("%w: RSA with %d bits, %d are needed", ErrWeakKey, pub.N.BitLen(), minRSABits)
		}
	case []byte:
		fits = k.Algorithm == HS256
		if fits && len(pub) < sha256.Size {
			return fmt.Errorf("%w: a secret of %d bytes, HS256 needs %d", ErrWeakKey, len(pub), sha256.Size)
		}
	}
	if !fits {
		return fmt.Errorf("authn: a %T is no key for %q", k.Public, k.Algorithm)
	}
	return nil
}

var methods = map[Algorithm]jwt.SigningMethod{
	EdDSA: jwt.SigningMethodEdDSA, HS256: jwt.SigningMethodHS256, RS256: jwt.SigningMethodRS256, ES256: jwt.SigningMethodES256,
}

// verify checks a signature. The key has been checked when it entered its Set.
func (k VerifyKey) verify(signed string, sig []byte) error {
	if k.Algorithm == PS256 { // golang-jwt accepts any length of salt, RFC 7518 only the hash's
		pub, ok := k.Public.(*rsa.PublicKey)
		if !ok {
			return refuse("signature")
		}
		sum := sha256.Sum256([]byte(signed))
		if rsa.VerifyPSS(pub, crypto.SHA256, sum[:], sig, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) != nil {
			return refuse("signature")
		}
		return nil
	}
	m, ok := methods[k.Algorithm]
	if !ok || m.Verify(signed, sig, k.Public) != nil {
		return refuse("signature")
	}
	return nil
}
