package authn_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sillar-go/sillar/authn"
)

func TestParseJWKS(t *testing.T) {
	n := func(bits int) string {
		k, err := rsa.GenerateKey(rand.Reader, bits)
		must(t, err)
		return base64.RawURLEncoding.EncodeToString(k.N.Bytes())
	}
	good, weak := n(2048), n(1024)
	const x, y = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"
	for name, c := range map[string]struct {
		key  string
		want authn.Algorithm // "" for a key that is skipped
	}{
		"RSA":                 {`{"kty":"RSA","n":"` + good + `","e":"AQAB"}`, authn.RS256},
		"RSA for PS256":       {`{"kty":"RSA","alg":"PS256","n":"` + good + `","e":"AQAB"}`, authn.PS256},
		"RSA for RS512":       {`{"kty":"RSA","alg":"RS512","n":"` + good + `","e":"AQAB"}`, authn.RS512},
		"RSA with padding":    {`{"kty":"RSA","alg":"PS384","n":"` + good + `==","e":"AQAB"}`, authn.PS384},
		"RSA for encryption":  {`{"kty":"RSA","alg":"RSA-OAEP","n":"` + good + `","e":"AQAB"}`, ""},
		"RSA as a secret":     {`{"kty":"RSA","alg":"HS256","n":"` + good + `","e":"AQAB"}`, ""},
		"RSA with a chain":    {`{"kty":"RSA","x5c":["MIIB"],"x5t":"abc","n":"` + good + `","e":"AQAB"}`, authn.RS256},
		"RSA too short":       {`{"kty":"RSA","n":"` + weak + `","e":"AQAB"}`, ""},
		"RSA exponent 1":      {`{"kty":"RSA","n":"` + good + `","e":"AQ"}`, ""},
		"RSA even exponent":   {`{"kty":"RSA","n":"` + good + `","e":"BA"}`, ""},
		"RSA without modulus": {`{"kty":"RSA","e":"AQAB"}`, ""},
		"EC":                  {`{"kty":"EC","crv":"P-256","use":"sig","x":"` + x + `","y":"` + y + `"}`, authn.ES256},
		"EC off the curve":    {`{"kty":"EC","crv":"P-256","x":"` + x + `","y":"` + x + `"}`, ""},
		"EC of another curve": {`{"kty":"EC","crv":"P-384","x":"` + x + `","y":"` + y + `"}`, ""},
		"EC for encryption":   {`{"kty":"EC","crv":"P-256","use":"enc","x":"` + x + `","y":"` + y + `"}`, ""},
		"EC with operations": {`{"kty":"EC","crv":"P-256","key_ops":["verify"],"x":"` + x + `","y":"` + y + `"}`,
			authn.ES256},
		"EC for other operations": {`{"kty":"EC","crv":"P-256","key_ops":["deriveKey"],"x":"` + x + `","y":"` + y + `"}`, ""},
		"EC for no operation":     {`{"kty":"EC","crv":"P-256","key_ops":[],"x":"` + x + `","y":"` + y + `"}`, ""},
		"EC cut":                  {`{"kty":"EC","crv":"P-256","x":"` + x[:20] + `","y":"` + y + `"}`, ""},
		"Ed25519": {`{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`,
			authn.EdDSA},
		"Ed25519 by its new name": {`{"kty":"OKP","crv":"Ed25519","alg":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`, authn.EdDSA},
		"Ed25519 cut":             {`{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQH"}`, ""},
		"X25519":                  {`{"kty":"OKP","crv":"X25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`, ""},
		"a secret":                {`{"kty":"oct","alg":"HS256","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}`, ""},
		"a number":                {`7`, ""},
		"kty missing":             {`{}`, ""},
	} {
		keys, err := authn.ParseJWKS([]byte(`{"keys":[`+c.key+`]}`), "")
		switch {
		case (c.want == "") != (err != nil):
			t.Errorf("%s: %v", name, err)
		case c.want == "" && len(keys) != 0:
			t.Errorf("%s: taken as %s", name, keys[0].Algorithm)
		case c.want != "" && (len(keys) != 1 || keys[0].Algorithm != c.want):
			t.Errorf("%s: %v", name, keys)
		}
	}
	for _, doc := range []string{"", "[]", "{}", `{"keys":null}`, `{"keys":[` + strings.Repeat("{},", 200) + "{}]}"} {
		if _, err := authn.ParseJWKS([]byte(doc), ""); err == nil {
			t.Errorf("%.20q: accepted", doc)
		}
	}
	ec, ed := `{"kty":"EC","crv":"P-256","kid":"KID","x":"`+x+`","y":"`+y+`"}`,
		`{"kty":"OKP","crv":"Ed25519","kid":"KID","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`
	for kid, want := range map[string]string{"one": "[ES256 EdDSA]", "": "[ES256 EdDSA ES256 EdDSA]"} {
		unusable := `{"kty":"EC","crv":"P-384","kid":"` + kid + `"}`
		doc := strings.ReplaceAll(strings.Join([]string{unusable, ec, strings.Replace(ed, "KID", "two", 1), ec, ed}, ","),
			"KID", kid)
		keys, err := authn.ParseJWKS([]byte(`{"keys":[`+doc+`]}`), "")
		must(t, err)
		var got []authn.Algorithm
		for _, k := range keys {
			got = append(got, k.Algorithm)
		}
		if fmt.Sprint(got) != want {
			t.Errorf("two keys with the kid %q: %v, want %s", kid, got, want)
		}
	}
}

// broken finds no key and knows no revocation, because it cannot.
type broken struct{}

func (broken) Keys(context.Context, string, authn.Algorithm) ([]authn.VerifyKey, error) {
	return nil, errors.New("dial tcp: hush")
}
func (broken) Revoked(context.Context, string) (bool, error) {
	return false, errors.New("dial tcp: hush")
}

func TestUnavailableIsNot401(t *testing.T) {
	w := newWorld(t, authn.KeyConfig{}, authn.IssuerConfig{})
	token := w.issue(t).AccessToken
	for name, v := range map[string]*authn.Verifier{
		"keys": authn.Must(authn.NewVerifier(broken{}, authn.VerifierConfig{Issuer: issuerName, Logger: quiet})),
		"revocations": authn.Must(authn.NewVerifier(w.keys, authn.VerifierConfig{Issuer: issuerName, Logger: quiet,
			Revocations: broken{}})),
	} {
		_, _, _, err := v.Authenticate(t.Context(), token)
		if !errors.Is(err, authn.ErrUnavailable) || errors.Is(err, authn.ErrToken) {
			t.Errorf("%s: %v", name, err)
		}
		if _, ok := errors.AsType[interface {
			error
			Challenge() string
		}](err); ok {
			t.Errorf("%s: it challenges the caller", name)
		}
		if says, ok := errors.AsType[interface {
			error
			Temporary() bool
		}](err); !ok || !says.Temporary() { // as packages ask that do not import this one
			t.Errorf("%s: it does not say that it will pass", name)
		}
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		rec := httptest.NewRecorder()
		authn.Require(v)(http.NotFoundHandler()).ServeHTTP(rec, r)
		if rec.Code != 503 || rec.Header().Get("Retry-After") == "" || rec.Header().Get("WWW-Authenticate") != "" ||
			strings.Contains(rec.Body.String(), "hush") {
			t.Errorf("%s: %d %v %s", name, rec.Code, rec.Header(), rec.Body)
		}
	}
	rec := httptest.NewRecorder()
	authn.WriteError(t.Context(), rec, errors.New("hush"))
	if rec.Code != 500 || strings.Contains(rec.Body.String(), "hush") {
		t.Errorf("another error: %d %s", rec.Code, rec.Body)
	}
}

// Every header by which a client could claim an identity is removed.
func TestRequireRemovesIdentity(t *testing.T) {
	w := newWorld(t, authn.KeyConfig{}, authn.IssuerConfig{})
	for _, name := range []string{"X-User-ID", "x-user-roles", "X-User-Email"} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Authorization", "Bearer "+w.issue(t).AccessToken)
		r.Header.Set(name, "root")
		r.Header.Set("X-Other", "kept")
		authn.Require(w.v)(http.HandlerFunc(func(_ http.ResponseWriter, in *http.Request) {
			if in.Header.Get(name) != "" || in.Header.Get("X-Other") != "kept" {
				t.Errorf("%s: %v", name, in.Header)
			}
		})).ServeHTTP(httptest.NewRecorder(), r)
		if r.Header.Get(name) != "root" {
			t.Errorf("%s: the caller's own request has changed", name)
		}
	}
}

func TestAuthenticateSelectsTheCredential(t *testing.T) {
	w := newWorld(t, authn.KeyConfig{}, authn.IssuerConfig{})
	id, roles, claims, err := w.v.Authenticate(t.Context(), w.issue(t, "admin").AccessToken)
	if err != nil || id != "u1" || fmt.Sprint(roles) != "[admin]" || claims["iss"] != issuerName {
		t.Errorf("%s %v %v %v", id, roles, claims, err)
	}
	for token, want := range map[string]string{"": "Bearer", "x.y.z": `Bearer error="invalid_token"`} {
		_, _, _, err := w.v.Authenticate(t.Context(), token)
		c, ok := err.(interface{ Challenge() string })
		if !ok || c.Challenge() != want {
			t.Errorf("%q: %v", token, err)
		}
	}
}

func TestTypesAndRolesClaim(t *testing.T) {
	secret := []byte(strings.Repeat("k", 32))
	keys, err := authn.NewSecretKeySet(secret)
	must(t, err)
	v := authn.Must(authn.NewVerifier(keys, authn.VerifierConfig{Unbound: true, Types: []string{"at+jwt"},
		RolesClaim: "groups", Logger: quiet, Leeway: -1}))
	for head, ok := range map[string]bool{
		`{"alg":"HS256","typ":"at+jwt"}`: true, `{"alg":"HS256","typ":"application/AT+JWT"}`: true,
		`{"alg":"HS256","typ":"JWT"}`: false, `{"alg":"HS256"}`: false,
	} {
		u, err := v.Verify(t.Context(), hmacToken(secret, head, `{"sub":"u1","groups":["a"],"exp":4102444800}`))
		if (err == nil) != ok || ok && !u.HasAnyRole("a") {
			t.Errorf("%s: %+v, %v", head, u, err)
		}
	}
}

func TestRevokeSubjectAndLogs(t *testing.T) {
	var reported []authn.Revocation
	w := newWorld(t, authn.KeyConfig{}, authn.IssuerConfig{OnRevoke: func(_ context.Context, r authn.Revocation) error {
		reported = append(reported, r)
		return nil
	}})
	a, b := w.issue(t), w.issue(t)
	must(t, w.issuer.RevokeSubject(t.Context(), "u1"))
	for _, p := range []authn.TokenPair{a, b} {
		if _, err := w.issuer.Refresh(t.Context(), p.RefreshToken, ""); !errors.Is(err, authn.ErrRefresh) {
			t.Errorf("after RevokeSubject: %v", err)
		}
	}
	if len(reported) != 1 || reported[0].Subject != "u1" {
		t.Errorf("got the revocations %+v", reported)
	}
	var out strings.Builder
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "pair", a)
	if strings.Contains(out.String(), a.AccessToken) || strings.Contains(out.String(), a.RefreshToken) {
		t.Errorf("logged: %s", &out)
	}
	_, err := w.v.Verify(t.Context(), a.AccessToken+"x")
	if strings.Contains(fmt.Sprint(err), a.AccessToken[:20]) || !strings.HasPrefix(fmt.Sprint(err), "authn: ") {
		t.Errorf("error: %v", err)
	}
}

// A clock that was set back does not keep a set from learning what has happened to its keys.
func TestClockThatWasSetBack(t *testing.T) {
	store := authn.NewMemoryKeys()
	cfg := authn.KeyConfig{Logger: quiet}
	k := authn.Must(authn.NewKeySet(store, cfg))
	old, _, err := store.Load(t.Context())
	must(t, err)
	must(t, authn.Must(authn.NewKeySet(store, cfg)).Remove(t.Context(), old[0].ID)) // by another replica
	authn.SetDue(k, time.Now().Add(24*time.Hour))
	if _, err := k.Keys(t.Context(), old[0].ID, authn.EdDSA); !errors.Is(err, authn.ErrUnknownKey) {
		t.Errorf("a key that was removed still verifies: %v", err)
	}
}

// Coordinates of EC keys without their leading zeros, or with one more, are those of the same key.
func TestParseJWKSAcceptsCoordinatesOfOtherLengths(t *testing.T) {
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P521()} {
		var point []byte
		size := (curve.Params().BitSize + 7) / 8
		for point == nil || point[1] != 0 {
			k, err := ecdsa.GenerateKey(curve, rand.Reader)
			must(t, err)
			point, err = k.PublicKey.Bytes()
			must(t, err)
		}
		x, y := point[1:1+size], point[1+size:]
		b64 := base64.RawURLEncoding.EncodeToString
		for name, short := range map[string][]byte{"all": x, "none": x[1:], "one more": append([]byte{0}, x...)} {
			keys, err := authn.ParseJWKS(fmt.Appendf(nil, `{"keys":[{"kty":"EC","crv":%q,"x":%q,"y":%q}]}`,
				curve.Params().Name, b64(short), b64(y)), "")
			if err != nil || len(keys) != 1 {
				t.Errorf("%s with %s of the leading zeros: %v", curve.Params().Name, name, err)
				continue
			}
			public, _ := keys[0].Public.(*ecdsa.PublicKey)
			if got, err := public.Bytes(); err != nil || !bytes.Equal(got, point) {
				t.Errorf("%s with %s of the leading zeros: another key, %v", curve.Params().Name, name, err)
			}
		}
	}
}
