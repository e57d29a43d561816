package authn

import (
	"bytes"
	"cmp"
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
	"strings"
	"time"
)

// maxKeys bounds how many usable keys of a document are kept.
const maxKeys = 1000

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

// ParseJWKS reads a JWK Set document (RFC 7517). A key that cannot be used is skipped, as the RFC asks: of an unknown
// type, for encryption, too short, damaged, or symmetric; symmetric keys are never taken from a document. The error
// says why when no key is left, and then the keys are empty. Where usable keys share a kid, the first one counts. At
// most 1,000 keys are kept.
//
// An RSA key that names no algorithm verifies rsa, which is one of RS256, RS384, RS512, PS256, PS384 and PS512; empty
// means RS256. The curve of an EC or OKP key decides its algorithm.
func ParseJWKS(data []byte, rsa Algorithm) ([]VerifyKey, error) {
	var doc jwkSet
	if err := json.Unmarshal(data, &doc); err != nil || doc.Keys == nil {
		return nil, errors.New("authn: not a JWK Set: a JSON object with an array keys is needed")
	}
	var keys []VerifyKey
	var skipped []string
	taken := map[string]bool{}
	for i, raw := range doc.Keys {
		k, err := parseJWK(raw, cmp.Or(rsa, RS256))
		if err == nil && taken[k.ID] {
			err = errors.New("its kid is taken")
		}
		if err != nil {
			if len(skipped) < 5 {
				skipped = append(skipped, fmt.Sprintf("key %d: %s", i, err))
			}
			continue
		}
		keys = append(keys, k)
		taken[k.ID] = k.ID != ""
		if len(keys) == maxKeys {
			break
		}
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf(
			"authn: a JWK Set of %d keys without a usable one (%s)", len(doc.Keys), strings.Join(skipped, "; "),
		)
	}
	return keys, nil
}

// parseJWK reads one key. Its errors hold nothing of the document.
func parseJWK(raw json.RawMessage, rsa Algorithm) (VerifyKey, error) {
	var j jwk
	if json.Unmarshal(raw, &j) != nil {
		return VerifyKey{}, errors.New("not a JWK")
	}
	if j.Use != "" && j.Use != "sig" || j.Ops != nil && !slices.Contains(j.Ops, "verify") {
		return VerifyKey{}, errors.New("not for verifying signatures")
	}
	k := VerifyKey{ID: j.ID}
	var ok bool
	switch j.KeyType {
	case "OKP":
		var x []byte
		x, ok = base64url(j.X)
		k.Algorithm, k.Public = EdDSA, ed25519.PublicKey(x)
		if j.Algorithm == "Ed25519" { // RFC 9864
			j.Algorithm = string(EdDSA)
		}
		ok = ok && j.Curve == "Ed25519"
	case "EC":
		k.Algorithm, k.Public, ok = j.ec()
	case "RSA":
		k.Public, ok = j.rsa()
		k.Algorithm = cmp.Or(Algorithm(j.Algorithm), rsa)
	default:
		return VerifyKey{}, errors.New("of a type that is not verified here")
	}
	if !ok {
		return VerifyKey{}, errors.New("damaged, or of an unknown curve")
	}
	if j.Algorithm != "" && j.Algorithm != string(k.Algorithm) {
		return VerifyKey{}, errors.New("its algorithm does not fit its type")
	}
	return k, k.Check()
}

func (j jwk) rsa() (*rsa.PublicKey, bool) {
	n, ok1 := base64url(j.N)
	e, ok2 := base64url(j.E)
	if !ok1 || !ok2 || len(e) == 0 || len(e) > 4 || len(n) > 2048 {
		return nil, false
	}
	exp := int(new(big.Int).SetBytes(e).Int64())
	return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: exp}, exp >= 3 && exp&1 == 1
}

func (j jwk) ec() (Algorithm, *ecdsa.PublicKey, bool) {
	var alg Algorithm
	var curve elliptic.Curve
	switch j.Curve {
	case "P-256":
		alg, curve = ES256, elliptic.P256()
	case "P-384":
		alg, curve = ES384, elliptic.P384()
	case "P-521":
		alg, curve = ES512, elliptic.P521()
	default:
		return "", nil, false
	}
	size := (curve.Params().BitSize + 7) / 8
	x, ok1 := coordinate(j.X, size)
	y, ok2 := coordinate(j.Y, size)
	if !ok1 || !ok2 {
		return "", nil, false
	}
	pub, err := ecdsa.ParseUncompressedPublicKey(curve, slices.Concat([]byte{4}, x, y)) // checks that it is on the curve
	return alg, pub, err == nil
}

// coordinate decodes a coordinate of an EC key to size bytes. RFC 7518 wants exactly that many in the JWK, but Authlib
// leaves leading zeros out, and libraries on Java's BigInteger put one in front. The number is the same.
func coordinate(s string, size int) ([]byte, bool) {
	data, ok := base64url(s)
	data = bytes.TrimLeft(data, "\x00")
	if !ok || len(data) > size {
		return nil, false
	}
	return append(make([]byte, size-len(data)), data...), true
}

// base64url decodes a member of a JWK. Some issuers pad what RFC 7515 wants unpadded.
func base64url(s string) ([]byte, bool) {
	data, err := encoding.DecodeString(strings.TrimRight(s, "="))
	return data, err == nil
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
		half := (len(point) - 1) / 2
		j.KeyType, j.Curve, j.X, j.Y = "EC", pub.Curve.Params().Name, b64(point[1:1+half]), b64(point[1+half:])
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
	for _, r := range k.keys.Load().all {
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
		_, _ = w.Write(doc) // the client may have left
	})
}
