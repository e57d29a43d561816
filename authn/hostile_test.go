package authn_test

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sillar-go/sillar/authn"
)

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// forge signs any header and payload with an Ed25519 key.
func forge(key ed25519.PrivateKey, header, payload string) string {
	signed := b64(header) + "." + b64(payload)
	return signed + "." + b64(string(ed25519.Sign(key, []byte(signed))))
}

func hmacToken(secret []byte, header, payload string) string {
	signed := b64(header) + "." + b64(payload)
	m := hmac.New(sha256.New, secret)
	m.Write([]byte(signed))
	return signed + "." + b64(string(m.Sum(nil)))
}

type oneKey struct{ authn.VerifyKey }

func (o oneKey) Keys(_ context.Context, id string, _ authn.Algorithm) ([]authn.VerifyKey, error) {
	if id != o.ID && id != "" {
		return nil, authn.ErrUnknownKey
	}
	return []authn.VerifyKey{o.VerifyKey}, nil
}

// TestHostileTokens signs every token with the right key, unless the signature is what is attacked, so that it is
// refused by the check that its name describes.
func TestHostileTokens(t *testing.T) {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	v := authn.Must(authn.NewVerifier(oneKey{authn.VerifyKey{ID: "k1", Algorithm: authn.EdDSA, Public: pub}},
		authn.VerifierConfig{Issuer: issuerName, Audience: []string{"shop", "back"}, Logger: quiet, CacheSize: -1}))

	now := time.Now().Unix()
	const head = `{"alg":"EdDSA","kid":"k1"}`
	body := func(change ...string) string { // "name", json ("" removes)
		m := map[string]json.RawMessage{
			"iss": json.RawMessage(`"` + issuerName + `"`), "aud": json.RawMessage(`["shop"]`), "sub": json.RawMessage(`"u1"`),
			"exp": json.RawMessage(fmt.Sprint(now + 600)), "roles": json.RawMessage(`["admin"]`), "jti": json.RawMessage(`"j1"`),
		}
		for i := 0; i < len(change); i += 2 {
			if change[i+1] == "" {
				delete(m, change[i])
			} else {
				m[change[i]] = json.RawMessage(change[i+1])
			}
		}
		data, err := json.Marshal(m)
		must(t, err)
		return string(data)
	}
	plus := func(extra string) string { return strings.TrimSuffix(body(), "}") + "," + extra + "}" }
	good := forge(key, head, body())
	sig := good[strings.LastIndex(good, ".")+1:]
	signedBy := func(header string, sign func([]byte) []byte) string {
		signed := b64(header) + "." + b64(body())
		return signed + "." + b64(string(sign([]byte(signed))))
	}

	for name, token := range map[string]string{
		"plain":              good,
		"no kid":             forge(key, `{"alg":"EdDSA"}`, body()),
		"typ JWT":            forge(key, `{"alg":"EdDSA","typ":"JWT"}`, body()),
		"typ at+jwt":         forge(key, `{"alg":"EdDSA","typ":"application/at+JWT"}`, body()),
		"jku is ignored":     forge(key, `{"alg":"EdDSA","kid":"k1","jku":"https://evil.test/keys"}`, body()),
		"x5u is ignored":     forge(key, `{"alg":"EdDSA","kid":"k1","x5u":"https://evil.test/cert"}`, body()),
		"jwk is ignored":     forge(key, `{"alg":"EdDSA","kid":"k1","jwk":{"kty":"oct","k":"AAAA"}}`, body()),
		"aud as a string":    forge(key, head, body("aud", `"back"`)),
		"second audience":    forge(key, head, body("aud", `["x","back"]`)),
		"expired in leeway":  forge(key, head, body("exp", fmt.Sprint(now-10))),
		"nbf in leeway":      forge(key, head, body("nbf", fmt.Sprint(now+10))),
		"exp as a fraction":  forge(key, head, body("exp", fmt.Sprintf("%d.5", now+600))),
		"no roles":           forge(key, head, body("roles", "")),
		"roles null":         forge(key, head, body("roles", `null`)),
		"roles empty text":   forge(key, head, body("roles", `""`)),
		"scope null":         forge(key, head, body("scope", `null`)),
		"nested objects":     forge(key, head, plus(`"org":{"Sub":"x","sub":"y","a":[1,{"b":null}]}`)),
		"unicode claim":      forge(key, head, plus(`"name":"Jos\u00e9 \ud83d\ude00"`)),
		"claim of its own":   forge(key, head, plus(`"tenantId":"t1"`)),
		"space inside JSON":  forge(key, head, strings.ReplaceAll(body(), ",", " , \n")),
		"escaped claim name": forge(key, head, strings.Replace(body(), `"jti"`, `"\u006ati"`, 1)),
	} {
		if u, err := v.Verify(t.Context(), token); err != nil || u.ID != "u1" {
			t.Errorf("%s: refused: %v", name, err)
		}
		if h, g, err := verifyEverywhere(v, token); h != "u1" || g != "u1" {
			t.Errorf("%s: HTTP admits %q, gRPC %q: %v", name, h, g, err)
		}
	}

	rsaPub := base64.RawURLEncoding.EncodeToString(rsaKey.N.Bytes())
	hostile := map[string]string{
		"empty":                     "",
		"one part":                  "abc",
		"two parts":                 strings.TrimSuffix(good, "."+sig),
		"four parts":                good + "." + sig,
		"no signature":              strings.TrimSuffix(good, sig),
		"no header":                 good[strings.Index(good, "."):],
		"no payload":                b64(head) + ".." + sig,
		"alg none":                  b64(`{"alg":"none","kid":"k1"}`) + "." + b64(body()) + ".",
		"alg none with signature":   forge(key, `{"alg":"none","kid":"k1"}`, body()),
		"alg None":                  forge(key, `{"alg":"None","kid":"k1"}`, body()),
		"alg NONE":                  forge(key, `{"alg":"NONE","kid":"k1"}`, body()),
		"alg nOnE":                  forge(key, `{"alg":"nOnE","kid":"k1"}`, body()),
		"alg in another case":       forge(key, `{"alg":"eddsa","kid":"k1"}`, body()),
		"alg missing":               forge(key, `{"kid":"k1"}`, body()),
		"alg null":                  forge(key, `{"alg":null,"kid":"k1"}`, body()),
		"alg as an array":           forge(key, `{"alg":["EdDSA"],"kid":"k1"}`, body()),
		"alg twice":                 forge(key, `{"alg":"none","alg":"EdDSA","kid":"k1"}`, body()),
		"alg twice in two cases":    forge(key, `{"alg":"EdDSA","Alg":"none","kid":"k1"}`, body()),
		"public key as HMAC secret": hmacToken(pub, `{"alg":"HS256","kid":"k1"}`, body()),
		"public key, claims EdDSA":  hmacToken(pub, head, body()),
		"empty HMAC secret":         hmacToken(nil, `{"alg":"HS256","kid":"k1"}`, body()),
		"RS256 for an EdDSA key": signedBy(`{"alg":"RS256","kid":"k1"}`, func(b []byte) []byte {
			h := sha256.Sum256(b)
			s, _ := rsa.SignPKCS1v15(nil, rsaKey, crypto.SHA256, h[:])
			return s
		}),
		"embedded key signs": forge(otherKey(t), `{"alg":"EdDSA","kid":"k1","jwk":{"kty":"RSA","n":"`+rsaPub+
			`","e":"AQAB"}}`, body()),
		"another key's signature":      forge(otherKey(t), head, body()),
		"signature of another payload": b64(head) + "." + b64(body("sub", `"admin"`)) + "." + sig,
		"signature cut":                good[:len(good)-4],
		"signature too long":           good + "AAAA",
		"signature all zero":           signedBy(head, func([]byte) []byte { return make([]byte, 64) }),
		"unknown kid":                  forge(key, `{"alg":"EdDSA","kid":"k2"}`, body()),
		"kid as a path":                forge(key, `{"alg":"EdDSA","kid":"../../dev/null"}`, body()),
		"kid as SQL":                   forge(key, `{"alg":"EdDSA","kid":"x' UNION SELECT 'k'--"}`, body()),
		"kid as a number":              forge(key, `{"alg":"EdDSA","kid":1}`, body()),
		"kid empty":                    forge(key, `{"alg":"EdDSA","kid":""}`, body()),
		"crit unknown":                 forge(key, `{"alg":"EdDSA","kid":"k1","crit":["x"],"x":1}`, body()),
		"crit empty":                   forge(key, `{"alg":"EdDSA","kid":"k1","crit":[]}`, body()),
		"crit b64":                     forge(key, `{"alg":"EdDSA","kid":"k1","crit":["b64"],"b64":false}`, body()),
		"b64 false":                    forge(key, `{"alg":"EdDSA","kid":"k1","b64":false}`, body()),
		"encrypted":                    forge(key, `{"alg":"EdDSA","kid":"k1","enc":"A256GCM"}`, body()),
		"nested token by cty":          forge(key, `{"alg":"EdDSA","kid":"k1","cty":"JWT"}`, body()),
		"nested token as payload":      forge(key, head, good),
		"typ of an id token":           forge(key, `{"alg":"EdDSA","kid":"k1","typ":"id_token+jwt"}`, body()),
		"typ of a logout token":        forge(key, `{"alg":"EdDSA","kid":"k1","typ":"logout+jwt"}`, body()),
		"typ as a number":              forge(key, `{"alg":"EdDSA","kid":"k1","typ":7}`, body()),
		"header is an array":           forge(key, `["EdDSA"]`, body()),
		"header with text after":       forge(key, head+"x", body()),
		"payload with text after":      forge(key, head, body()+" {}"),
		"payload is a string":          forge(key, head, `"hello"`),
		"payload is null":              forge(key, head, `null`),
		"payload empty object":         forge(key, head, `{}`),
		"payload broken UTF-8":         forge(key, head, plus("\"x\":\"\xff\"")),
		"payload lone surrogate":       forge(key, head, plus(`"x":"\ud800"`)),
		"payload control character":    forge(key, head, plus("\"x\":\"\x01\"")),
		"payload leading zero":         forge(key, head, plus(`"x":01`)),
		"payload comma at the end":     forge(key, head, strings.TrimSuffix(body(), "}")+",}"),
		"payload deep":                 forge(key, head, plus(`"x":`+strings.Repeat("[", 200)+strings.Repeat("]", 200))),
		"sub twice":                    forge(key, head, plus(`"sub":"root"`)),
		"sub twice, once escaped":      forge(key, head, plus(`"\u0073ub":"root"`)),
		"Sub beside sub":               forge(key, head, plus(`"Sub":"root"`)),
		"long s in sub":                forge(key, head, plus(`"ſub":"root"`)),
		"SUB instead of sub":           forge(key, head, strings.Replace(body(), `"sub"`, `"SUB"`, 1)),
		"Exp beside exp":               forge(key, head, plus(`"Exp":9999999999`)),
		"Roles beside roles":           forge(key, head, plus(`"ROLES":["root"]`)),
		"own claims in two cases":      forge(key, head, plus(`"tenantId":"a","tenantid":"b"`)),
		"twice inside":                 forge(key, head, plus(`"org":{"a":1,"a":2}`)),
		"no exp":                       forge(key, head, body("exp", "")),
		"exp null":                     forge(key, head, body("exp", "null")),
		"exp as a string":              forge(key, head, body("exp", fmt.Sprintf(`"%d"`, now+600))),
		"exp past":                     forge(key, head, body("exp", fmt.Sprint(now-31))),
		"exp 0":                        forge(key, head, body("exp", "0")),
		"exp negative":                 forge(key, head, body("exp", "-1")),
		"exp huge":                     forge(key, head, body("exp", "1e300")),
		"exp out of range":             forge(key, head, body("exp", "1e999")),
		"exp as an array":              forge(key, head, body("exp", fmt.Sprintf("[%d]", now+600))),
		"nbf to come":                  forge(key, head, body("nbf", fmt.Sprint(now+31+5))),
		"nbf as a string":              forge(key, head, body("nbf", `"0"`)),
		"iat to come":                  forge(key, head, body("iat", fmt.Sprint(now+600))),
		"no iss":                       forge(key, head, body("iss", "")),
		"other iss":                    forge(key, head, body("iss", `"https://evil.test"`)),
		"iss with slash":               forge(key, head, body("iss", `"`+issuerName+`/"`)),
		"iss as an array":              forge(key, head, body("iss", `["`+issuerName+`"]`)),
		"no aud":                       forge(key, head, body("aud", "")),
		"aud empty":                    forge(key, head, body("aud", "[]")),
		"other aud":                    forge(key, head, body("aud", `["shopping"]`)),
		"aud in another case":          forge(key, head, body("aud", `"SHOP"`)),
		"aud with a number":            forge(key, head, body("aud", `["shop",1]`)),
		"aud null":                     forge(key, head, body("aud", `null`)),
		"aud as an object":             forge(key, head, body("aud", `{"shop":true}`)),
		"no sub":                       forge(key, head, body("sub", "")),
		"sub empty":                    forge(key, head, body("sub", `""`)),
		"sub as a number":              forge(key, head, body("sub", `1`)),
		"roles as a number":            forge(key, head, body("roles", `7`)),
		"scope as a number":            forge(key, head, body("scope", `7`)),
		"bound to a key":               forge(key, head, body("cnf", `{"jkt":"x"}`)),
		"bound to null":                forge(key, head, body("cnf", `null`)),
		"ID token of Keycloak":         forge(key, head, body("typ", `"ID"`)),
		"refresh token of Keycloak":    forge(key, head, body("typ", `"Refresh"`)),
		"ID token of Cognito":          forge(key, head, body("token_use", `"id"`)),
		"ID token with a hash":         forge(key, head, body("at_hash", `"x"`)),
		"logout token": forge(key, head,
			body("events", `{"http://schemas.openid.net/event/backchannel-logout":{}}`)),
		"half a surrogate pair":       forge(key, head, plus(`"x":"\ud800"`)),
		"surrogates in wrong order":   forge(key, head, plus(`"x":"\udc00\ud800"`)),
		"a high surrogate, then text": forge(key, head, plus(`"x":"\ud83dx\n"`)),
		"roles with an object":        forge(key, head, body("roles", `[{"a":1}]`)),
		"jti as a number":             forge(key, head, body("jti", `1`)),
		"too long":                    forge(key, head, plus(`"x":"`+strings.Repeat("a", authn.MaxTokenSize)+`"`)),
		"space before":                " " + good,
		"space after":                 good + " ",
		"line break after":            good + "\n",
		"line break inside":           good[:20] + "\n" + good[20:],
		"padding":                     good + "==",
		"standard alphabet": strings.NewReplacer("-", "+", "_",
			"/").Replace(forge(key, head, plus(`"x":"???>>>~~~"`))) + "+",
		"NUL":                     good[:20] + "\x00" + good[20:],
		"non-canonical signature": nonCanonical(good),
		"JSON serialization":      `{"payload":"` + b64(body()) + `","signatures":[]}`,
	}
	for name, token := range hostile {
		if name != "space before" { // in a header it is a second space behind the scheme, which RFC 9110 allows
			if h, g, err := verifyEverywhere(v, token); h != "" || g != "" || err != nil {
				t.Errorf("%s: HTTP admits %q, gRPC %q: %v", name, h, g, err)
			}
		}
		u, err := v.Verify(t.Context(), token)
		if err == nil {
			t.Errorf("%s: accepted as %q", name, u.ID)
		} else if !errors.Is(err, authn.ErrToken) {
			t.Errorf("%s: %v is no ErrToken", name, err)
		} else if c, ok := errors.AsType[*authn.TokenError](err); !ok || c.Challenge() != `Bearer error="invalid_token"` {
			t.Errorf("%s: challenge %v", name, err)
		}
	}
	if len(hostile) < 60 {
		t.Errorf("only %d hostile tokens", len(hostile))
	}
}

func otherKey(t *testing.T) ed25519.PrivateKey {
	_, k, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	return k
}

// nonCanonical changes the bits of the last character that carry nothing: lenient decoders see the same signature.
func nonCanonical(token string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	i := strings.IndexByte(alphabet, token[len(token)-1])
	return token[:len(token)-1] + string(alphabet[i+1])
}

func TestPSSSaltLength(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	token := func(salt int) string {
		signed := b64(`{"alg":"PS256"}`) + "." + b64("hello")
		sum := sha256.Sum256([]byte(signed))
		sig, err := rsa.SignPSS(rand.Reader, key, crypto.SHA256, sum[:], &rsa.PSSOptions{SaltLength: salt})
		must(t, err)
		return signed + "." + b64(string(sig))
	}
	vk := authn.VerifyKey{Algorithm: authn.PS256, Public: &key.PublicKey}
	if _, payload, err := authn.VerifyJWS(token(32), vk); err != nil || string(payload) != "hello" {
		t.Fatalf("salt of the hash's length: %q, %v", payload, err)
	}
	for _, salt := range []int{20, 64} {
		if _, _, err := authn.VerifyJWS(token(salt), vk); err == nil {
			t.Errorf("a salt of %d bytes was accepted", salt)
		}
	}
}

// TestRFCVectors verifies the examples of RFC 7515 (A.1 HS256, A.3 ES256) and RFC 8037 (A.4 Ed25519).
func TestRFCVectors(t *testing.T) {
	secret, _ := base64.RawURLEncoding.DecodeString("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
	ec, err := authn.ParseJWKS([]byte(`{"keys":[{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}`), "")
	must(t, err)
	ed, err := authn.ParseJWKS([]byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`), "")
	must(t, err)
	const joe = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
	for name, c := range map[string]struct {
		token string
		key   authn.VerifyKey
	}{
		"HS256": {"eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9." + joe + ".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
			authn.VerifyKey{Algorithm: authn.HS256, Public: secret}},
		"ES256": {"eyJhbGciOiJFUzI1NiJ9." + joe +
			".DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q", ec[0]},
		"EdDSA": {"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg", ed[0]},
	} {
		if _, _, err := authn.VerifyJWS(c.token, c.key); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, _, err := authn.VerifyJWS(strings.Replace(c.token, ".", ".A", 1), c.key); err == nil {
			t.Errorf("%s: changed, accepted", name)
		}
	}
}

func TestWeakAndUnfitKeys(t *testing.T) {
	if _, err := authn.NewSecretKeySet(make([]byte, 31)); !errors.Is(err, authn.ErrWeakKey) {
		t.Errorf("31 bytes: %v", err)
	}
	if _, err := authn.NewSecretKeySet(make([]byte, 32)); err != nil {
		t.Errorf("32 bytes: %v", err)
	}
	pub, _, _ := ed25519.GenerateKey(rand.Reader)
	for _, k := range []authn.VerifyKey{
		{Algorithm: authn.HS256, Public: pub}, {Algorithm: authn.EdDSA, Public: []byte(pub)},
		{Algorithm: "none", Public: pub},
		{Algorithm: authn.RS256, Public: pub}, {Algorithm: authn.EdDSA, Public: nil},
		{Algorithm: authn.EdDSA, Public: pub[:31]},
	} {
		if k.Check() == nil {
			t.Errorf("%T passes for %s", k.Public, k.Algorithm)
		}
	}
	for name, c := range map[string]authn.VerifierConfig{
		"bound to nothing": {}, "leeway": {Issuer: "x", Leeway: 31 * time.Second},
	} {
		if _, err := authn.NewVerifier(oneKey{}, c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
