package authn_test

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/c2sp/wycheproof"

	"github.com/sillar-go/sillar/authn"
)

// attacks are the flags of the vectors: all that carry one are refused, and why.
var attacks = map[string]string{
	"AlgIsNone":         "no key has this algorithm",
	"JsonSerialization": "only the compact form is read",
	"ModifiedPadding":   "PKCS #1 is compared as a whole",
	"ModifiedSignature": "the signature does not fit",
	"WrongPrimitive":    "the key names its only algorithm",
	"MixedKeySet":       "secrets are not taken from a key set, so the token's key is unknown",
	"Ambiguous":         "as MixedKeySet and DuplicateKid",
	"DuplicateKid":      "secrets are not taken from a key set",
}

// judged are the vectors without a flag that are judged otherwise than their file says, by comment and key.
var judged = map[string]struct {
	accept bool
	why    string
}{
	"Figure20 PS256":                          {false, "signed with PS384, with a key that is published for PS256"},
	"InvalidCharacterInsertedInHeader HS256":  {false, "it holds a question mark: called valid, yet no base64"},
	"InvalidCharacterInsertedInPayload HS256": {false, "it holds a question mark: called valid, yet no base64"},
	"invalidBase64Padding HS256": {true,
		"called invalid, yet the same token as ValidMac: the padding was lost"},
	"invalidBase64PaddingInPayload HS256": {true,
		"called invalid, yet the same token as ValidMac: the padding was lost"},
	"rejectsKeyWithRocaVulnerability RS256": {true, "keys are not examined for factors, only for their length"},
}

type vectorGroup struct {
	Comment string          `json:"comment"`
	Private json.RawMessage `json:"private"`
	Public  json.RawMessage `json:"public"`
	Tests   []struct {
		ID      int      `json:"tcId"`
		Comment string   `json:"comment"`
		Result  string   `json:"result"`
		Flags   []string `json:"flags"`
		JWS     any      `json:"jws"` // a string, or an object in JSON serialization
	} `json:"tests"`
}

// TestVerifyPassesWycheproofVectors verifies the public vectors of the Wycheproof project with VerifyJWS and ParseJWKS.
func TestVerifyPassesWycheproofVectors(t *testing.T) {
	count, used := map[string]int{}, map[string]bool{}
	for _, file := range []string{"json_web_signature_test.json", "json_web_key_test.json"} {
		data, err := fs.ReadFile(wycheproof.TestVectors, file)
		must(t, err)
		var doc struct {
			Groups []vectorGroup `json:"testGroups"`
		}
		must(t, json.Unmarshal(data, &doc))
		for _, g := range doc.Groups {
			g.run(t, count, used)
		}
	}
	t.Log(count)
	if count["accepted"] < 25 || count["refused"] < 300 {
		t.Errorf("too few vectors: %v", count)
	}
	for name := range judged {
		if !used[name] {
			t.Errorf("no vector is %q", name)
		}
	}
	for flag := range attacks {
		if count[flag] == 0 {
			t.Errorf("no vector has the flag %q", flag)
		}
	}
}

func (g vectorGroup) run(t *testing.T, count map[string]int, used map[string]bool) {
	for _, c := range g.Tests {
		token, compact := c.JWS.(string)
		if !compact {
			data, err := json.Marshal(c.JWS)
			must(t, err)
			token = string(data)
		}
		key, alg, ok := g.key(t, token)
		want := c.Result == "valid" && ok
		if name := c.Comment + " " + alg; judged[name].why != "" {
			want, used[name] = judged[name].accept, true
		}
		for _, f := range c.Flags {
			if attacks[f] == "" {
				t.Fatalf("vector %d has the flag %q, of which nothing is said here", c.ID, f)
			}
			count[f]++
			want = false
		}
		if !ok {
			count["no key"]++
			if want {
				t.Errorf("%s, %d %s: the key is refused", g.Comment, c.ID, c.Comment)
			}
			continue
		}
		switch _, _, err := authn.VerifyJWS(token, key); {
		case (err == nil) != want:
			t.Errorf("%s, %d %s (%s, %v): %v", g.Comment, c.ID, c.Comment, c.Result, c.Flags, err)
		case want:
			count["accepted"]++
		default:
			count["refused"]++
		}
	}
}

// key finds the token's key as a program does: public ones in a JWK Set, a secret alone. ok is false when there is none
// that may verify: another algorithm, a weak key, one for encryption.
func (g vectorGroup) key(t *testing.T, token string) (key authn.VerifyKey, alg string, ok bool) {
	type jwk struct {
		KeyType string `json:"kty"`
		ID      string `json:"kid"`
		Alg     string `json:"alg"`
		K       string `json:"k"`
	}
	raw := g.Public
	if raw == nil {
		raw = g.Private
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	must(t, json.Unmarshal(raw, &set))
	if set.Keys == nil {
		set.Keys = []json.RawMessage{raw}
		raw = fmt.Appendf(nil, `{"keys":[%s]}`, raw)
	}
	var first jwk
	must(t, json.Unmarshal(set.Keys[0], &first))
	if first.KeyType == "oct" && (len(set.Keys) == 1 || g.Comment == "jws_keyset") {
		secret, err := base64.RawURLEncoding.DecodeString(first.K)
		must(t, err)
		key = authn.VerifyKey{ID: first.ID, Algorithm: authn.Algorithm(first.Alg), Public: secret}
		return key, first.Alg, key.Check() == nil
	}
	keys, _ := authn.ParseJWKS(raw, "") // without a usable key ok is false
	head, _, _ := strings.Cut(token, ".")
	text, _ := base64.RawURLEncoding.DecodeString(head)
	var named jwk
	_ = json.Unmarshal(text, &named) // a damaged header names nothing
	for _, k := range keys {
		if k.ID == cmp.Or(named.ID, k.ID) || len(set.Keys) == 1 {
			return k, cmp.Or(first.Alg, string(k.Algorithm)), true
		}
	}
	return key, first.Alg, false
}
