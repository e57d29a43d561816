package authn

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

// FuzzStrictObject holds the strict reader against encoding/json: what it accepts, that accepts too, with the same
// meaning.
func FuzzStrictObject(f *testing.F) {
	for _, s := range []string{`{}`, `{"a":1}`, `{"a":[1,2.5e3,-0,null,true,{"b":"\u00e9\ud83d\ude00"}]}`, `{"a":1,"a":2}`, `{"A":1,"a":2}`, `{"a":"\ud800"}`, "{\"a\":\"\xff\"}", `{"a":01}`, `{"a":1}x`, `{"a" : 1 , "b":[ ]}`, `{"\u0061":1}`, `{"K":1,"k":1}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := strictObject(s)
		if err != nil {
			return
		}
		var want map[string]any
		if err := json.Unmarshal([]byte(s), &want); err != nil {
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
