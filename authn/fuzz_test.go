package authn

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// FuzzStrictObject holds the strict reader against encoding/json: what it accepts, that accepts too, with the same
// meaning.
func FuzzStrictObject(f *testing.F) {
	for _, s := range []string{`{}`, `{"a":1}`, `{"a":[1,2.5e3,-0,null,true,{"b":"\u00e9\ud83d\ude00"}]}`, `{"a":1,"a":2}`,
		`{"A":1,"a":2}`, `{"a":"\ud800"}`, "{\"a\":\"\xff\"}", `{"a":01}`, `{"a":1}x`, `{"a" : 1 , "b":[ ]}`, `{"\u0061":1}`,
		"{\"a\":\"\ufffd\\n\"}", `{"a":"\ufffd\\ud800\ud83d"}`, `{"K":1,"k":1}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := strictObject(s)
		if err != nil {
			return
		}
		var want map[string]any
		d := json.NewDecoder(strings.NewReader(s))
		d.UseNumber()
		if err := d.Decode(&want); err != nil {
			t.Fatalf("accepted %q, encoding/json says %v", s, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%q: got %v, encoding/json reads %v", s, got, want)
		}
		folded := map[string]bool{}
		for k := range got {
			l := strings.ToLower(k)
			if folded[l] {
				t.Fatalf("%q: two names differ only in case", s)
			}
			folded[l] = true
		}
	})
}

// FuzzSplit takes tokens apart: never a panic, and what is accepted is canonical.
func FuzzSplit(f *testing.F) {
	for _, s := range []string{"", "..", "a.b.c", "eyJhbGciOiJFZERTQSJ9.e30.AAAA", "eyJhbGciOiJFZERTQSJ9.e30.AAA="} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		j, err := split(s)
		if err != nil {
			return
		}
		back := j.signed + "." + encoding.EncodeToString(j.sig)
		if back != s || strings.Count(s, ".") != 2 || j.alg == "" {
			t.Fatalf("%q was accepted, canonical is %q", s, back)
		}
	})
}

var keySets = []string{
	`{"keys":[]}`, `{"keys":[{}]}`, `{"keys":[7]}`, `{"keys":[{"kty":"oct","k":"AAAA"}]}`,
	`{"keys":[{"kty":"EC","crv":"P-256","kid":"a","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}`,
	`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","key_ops":["verify"]}]}`,
	`{"keys":[{"kty":"RSA","n":"` + strings.Repeat("v", 342) + `","e":"AQAB","use":"sig"}]}`,
	`{"keys":[{"kty":"RSA","n":"AAAA","e":"AAAAAAAA"}]}`,
}

// FuzzParseJWKS reads key documents: never a panic, and what is taken is a key that may verify, and comes out as it
// went in.
func FuzzParseJWKS(f *testing.F) {
	for _, s := range keySets {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, err := ParseJWKS(data, "")
		if err != nil && keys != nil || len(keys) > maxKeys {
			t.Fatalf("%d keys, %v", len(keys), err)
		}
		for _, k := range keys {
			if err := k.Check(); err != nil {
				t.Fatal(err)
			}
			if k.Algorithm == HS256 {
				t.Fatal("a secret was taken from a document")
			}
			j, ok := encode(k)
			if !ok {
				t.Fatalf("%T cannot be published", k.Public)
			}
			raw, err := json.Marshal(j)
			if err != nil {
				t.Fatal(err)
			}
			if back, err := parseJWK(raw, RS256); err != nil || back.ID != k.ID || !back.equal(k) {
				t.Fatalf("%v became %v, %v", k, back, err)
			}
		}
	})
}

// FuzzBearer reads Authorization headers: what is found is the end of the only value, behind the scheme, and nothing in
// front of it but spaces.
func FuzzBearer(f *testing.F) {
	for _, s := range []string{"", "Bearer", "Bearer ", "Bearer x", "bearer  x.y.z ", "Bearer\tx", "Basic YTpi",
		"Bearer a, Bearer b", "BEARER \x00"} {
		f.Add(s, "")
	}
	f.Add("Bearer a", "Bearer b")
	v := Must(NewVerifier(noKeys{}, VerifierConfig{Unbound: true}))
	f.Fuzz(func(t *testing.T, one, two string) {
		token, err := Bearer([]string{one})
		if (err == nil) == (token == "") {
			t.Fatalf("%q: %q, %v", one, token, err)
		}
		if err == nil {
			scheme, found := strings.CutSuffix(one, token)
			if !found || token[0] == ' ' || !strings.EqualFold(strings.TrimRight(scheme, " "), "bearer") ||
				!strings.HasSuffix(scheme, " ") {
				t.Fatalf("%q: %q behind %q", one, token, scheme)
			}
		}
		if token, err := Bearer([]string{one, two}); err == nil {
			t.Fatalf("two values gave %q", token)
		}
		if u, err := Check(t.Context(), v, []string{one}); err == nil {
			t.Fatalf("%q admits %v", one, u)
		} else if c, ok := errors.AsType[interface {
			error
			Challenge() string
		}](err); !ok || c.Challenge() != "Bearer" && c.Challenge() != `Bearer error="invalid_token"` {
			t.Fatalf("%q: %v", one, err)
		}
	})
}

// noKeys is a KeySource without keys.
type noKeys struct{}

func (noKeys) Keys(context.Context, string, Algorithm) ([]VerifyKey, error) {
	return nil, ErrUnknownKey
}
