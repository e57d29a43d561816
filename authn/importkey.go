package authn

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/sillar-go/sillar/internal/secret"
)

// ImportKey reads an existing private key, for a KeyStore: PKCS #8, PKCS #1 (RSA PRIVATE KEY) or SEC 1 (EC PRIVATE KEY)
// in PEM. id is the kid that verifiers know it by. The key signs at once, and has no end until a successor is made. An
// RSA key signs RS256, one of P-256 ES256, one of Ed25519 EdDSA; others are refused.
func ImportKey(id string, pemData []byte) (Key, error) {
	block, _ := pem.Decode(pemData)
	if block == nil {
		return Key{}, errors.New("authn: import a key: not PEM")
	}
	var private any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		private, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		private, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		private, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		return Key{}, fmt.Errorf("authn: import a key: a PEM block of type %q, want an unencrypted PRIVATE KEY", block.Type)
	}
	if err != nil {
		return Key{}, errors.New("authn: import a key: the private key is not readable")
	}
	k := Key{ID: id, ActiveFrom: time.Now().UTC()}
	switch private.(type) {
	case ed25519.PrivateKey:
		k.Algorithm = EdDSA
	case *rsa.PrivateKey:
		k.Algorithm = RS256
	case *ecdsa.PrivateKey:
		k.Algorithm = ES256 // ready refuses other curves
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return Key{}, fmt.Errorf("authn: import a key: a %T cannot sign here", private)
	}
	k.Private = secret.New(der)
	if _, err := k.ready(); err != nil {
		return Key{}, fmt.Errorf("authn: import a key: %w", err)
	}
	return k, nil
}
