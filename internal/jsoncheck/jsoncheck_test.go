package jsoncheck_test

import (
	"encoding/json"
	"testing"
	"unicode/utf8"

	"github.com/sillar-go/sillar/internal/jsoncheck"
)

func FuzzReplacedUTF8(f *testing.F) {
	for _, s := range []string{"", "a", "\xff", "\ufffd", `\ufffd`, "\\\xff", "\\\\ufffd", "\U0001F600\x80<"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		data, err := json.Marshal(map[string]string{"k": s})
		if err != nil {
			t.Fatal(err)
		}
		if got, want := jsoncheck.ReplacedUTF8(data), !utf8.ValidString(s); got != want {
			t.Errorf("%q, encoded as %s: got %v, want %v", s, data, got, want)
		}
	})
}
