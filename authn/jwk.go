package authn

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// maxKeys bounds how many keys of a document are read.
const maxKeys = 100

// jwk is a public key in JSON (RFC 7517).
type jwk struct {
	KeyType   string   `json:"kty"`
	ID        string   `json:"kid,omitempty"`
	Use       string   `json:"use,omitempty"`
	Ops       []string `json:"key_ops,omitempty"`
	Algorithm string   `json:"alg,omitempty"`
	Curve     string   `json:"crv,omitempty"`
	X         string   `json:"x,omitempty"`
	Y         string   `json:"y,omitempty"`
	N         string   `json:"n,omitempty"`
	E         string   `json:"e,omitempty"`
}

type jwkSet struct {
	Keys []json.RawMessage `json:"keys"`
}

// ParseJWKS reads a JWK Set document. Keys of kinds that are not known here, for encryption, too short or damaged are
// skipped, as RFC 7517 asks; symmetric keys are never taken from a document. An RSA key that names no algorithm
// verifies RS256. Of usable keys with one kid the first one counts: a token's kid never leads to a choice.
func ParseJWKS(data []byte) ([]VerifyKey, error) {
	var doc jwkSet
	if err := json.Unmarshal(data, &doc); err != nil || doc.Keys == nil {
		return nil, errors.New("authn: not a JWK Set")
	}
	if len(doc.Keys) > maxKeys {
		return nil, fmt.Errorf("authn: a JWK Set of %d keys, at most %d are read", len(doc.Keys), maxKeys)
	}
	var keys []VerifyKey
	taken := map[string]bool{}
	for _, raw := range doc.Keys {
		var j jwk
		if json.Unmarshal(raw, &j) != nil {
			continue
		}
		if k, ok := j.key(); ok && k.Check() == nil && !taken[k.ID] {
			keys = append(keys, k)
			taken[k.ID] = k.ID != ""
		}
	}
	return keys, nil
}

func (j jwk) key() (VerifyKey, bool) {
	if j.Use != "" && j.Use != "sig" || j.Ops != nil && !slices.Contains(j.Ops, "verify") {
		return VerifyKey{}, false
	}
	k := VerifyKey{ID: j.ID}
	switch {
	case j.KeyType == "OKP" && j.Curve == "Ed25519":
		x, err := encoding.DecodeString(j.X)
		k.Algorithm, k.Public = EdDSA, ed25519.PublicKey(x)
		return k, err == nil && (j.Algorithm == "" || j.Algorithm == string(EdDSA) || j.Algorithm == "Ed25519")
	case j.KeyType == "EC" && j.Curve == "P-256":
		pub, ok := j.ec()
		k.Algorithm, k.Public = ES256, pub
		return k, ok && (j.Algorithm == "" || j.Algorithm == string(ES256))
	case j.KeyType == "RSA":
		n, err1 := encoding.DecodeString(j.N)
		e, err2 := encoding.DecodeString(j.E)
		if err1 != nil || err2 != nil || len(e) == 0 || len(e) > 4 || len(n) > 2048 {
			return k, false
		}
		exp := int(new(big.Int).SetBytes(e).Int64())
		k.Algorithm, k.Public = RS256, &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: exp}
		if j.Algorithm == string(PS256) {
			k.Algorithm = PS256
		}
		return k, exp >= 3 && exp&1 == 1 && (j.Algorithm == "" || j.Algorithm == string(k.Algorithm))
	}
	return k, false
}

func (j jwk) ec() (*ecdsa.PublicKey, bool) {
	x, err1 := encoding.DecodeString(j.X)
	y, err2 := encoding.DecodeString(j.Y)
	if err1 != nil || err2 != nil || len(x) != 32 || len(y) != 32 {
		return nil, false
	}
	pub, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(append([]byte{4}, x...), y...)) // checks that it is on the curve
	return pub, err == nil
}

// encode returns the public form of a key; ok is false for secrets.
func encode(k VerifyKey) (j jwk, ok bool) {
	b64 := base64.RawURLEncoding.EncodeToString
	j = jwk{ID: k.ID, Use: "sig", Algorithm: string(k.Algorithm)}
	switch pub := k.Public.(type) {
	case ed25519.PublicKey:
		j.KeyType, j.Curve, j.X = "OKP", "Ed25519", b64(pub)
	case *ecdsa.PublicKey:
		point, err := pub.Bytes()
		if err != nil {
			return jwk{}, false
		}
		j.KeyType, j.Curve, j.X, j.Y = "EC", "P-256", b64(point[1:33]), b64(point[33:])
	case *rsa.PublicKey:
		j.KeyType, j.N, j.E = "RSA", b64(pub.N.Bytes()), b64(big.NewInt(int64(pub.E)).Bytes())
	default:
		return jwk{}, false
	}
	return j, true
}

// JWKS returns the public keys as a JWK Set document. Secrets are never in it.
func (k *KeySet) JWKS() []byte {
	now := time.Now()
	doc := struct {
		Keys []jwk `json:"keys"`
	}{Keys: []jwk{}}
	for _, r := range *k.keys.Load() {
		if j, ok := encode(r.public); ok && (r.ExpiresAt.IsZero() || now.Before(r.ExpiresAt)) {
			doc.Keys = append(doc.Keys, j)
		}
	}
	data, err := json.Marshal(doc)
	if err != nil { // strings always encode
		panic(err)
	}
	return data
}

// Handler serves the JWK Set, by convention at /.well-known/jwks.json. Clients may cache it for a quarter of
// PublishAhead, 5 minutes at most.
func (k *KeySet) Handler() http.Handler {
	age := strconv.Itoa(int(min(k.cfg.PublishAhead/4, 5*time.Minute).Seconds()))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			h.Set("Allow", "GET, HEAD")
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
			return
		}
		k.refresh(r.Context())
		doc := k.JWKS()
		sum := sha256.Sum256(doc)
		etag := `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`
		h.Set("Content-Type", "application/jwk-set+json")
		h.Set("Cache-Control", "public, max-age="+age)
		h.Set("ETag", etag)
		if r.Header.Get("If-None-Match") == etag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		_, _ = w.Write(doc) // a client that has gone needs no answer
	})
}
