package authn

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// minSealing is the shortest secret that encrypts keys.
const minSealing = 32

// EncryptKeys returns keys as EncodeKeys does, encrypted (AES-256-GCM) with a key that is derived from secret (HKDF,
// RFC 5869), for a KeyStore that others can read, such as a database and its backups. version is the one that the keys
// are saved as: keys that are moved to another version do not decrypt. A secret shorter than 32 bytes gives ErrWeakKey.
func EncryptKeys(keys []Key, version int64, secret []byte) ([]byte, error) {
	data, err := EncodeKeys(keys)
	if err != nil {
		return nil, err
	}
	aead, err := sealing(secret)
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, aead.NonceSize())
	_, _ = rand.Read(nonce) // never fails
	return aead.Seal(nonce, nonce, data, versionBytes(version)), nil
}

// DecryptKeys is the inverse of EncryptKeys. It tries the secrets in their order, so that a secret can be replaced: the
// next rotation of the keys encrypts with the new one.
func DecryptKeys(data []byte, version int64, secrets ...[]byte) ([]Key, error) {
	for _, s := range secrets {
		aead, err := sealing(s)
		if err != nil {
			return nil, err
		}
		if len(data) < aead.NonceSize() {
			break
		}
		plain, err := aead.Open(nil, data[:aead.NonceSize()], data[aead.NonceSize():], versionBytes(version))
		if err == nil {
			return DecodeKeys(plain)
		}
	}
	return nil, errors.New("authn: stored keys do not decrypt: another secret, or damaged")
}

func sealing(secret []byte) (cipher.AEAD, error) {
	if len(secret) < minSealing {
		return nil, fmt.Errorf("%w: a secret of %d bytes, encrypting keys needs %d", ErrWeakKey, len(secret), minSealing)
	}
	key, err := hkdf.Key(sha256.New, secret, nil, "sillar signing keys", 32)
	if err != nil {
		return nil, fmt.Errorf("authn: derive a key: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("authn: make a cipher: %w", err)
	}
	return cipher.NewGCM(block)
}

func versionBytes(version int64) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(version))
}
