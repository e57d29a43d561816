package sqlrepo

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/sillar-go/sillar/repository/driver"
)

// FuzzArrays checks that text comes back from an array as it was put in, and that no text makes fromArray fail.
func FuzzArrays(f *testing.F) {
	for _, s := range []string{"", "a", `{"a",b}`, `{NULL,"\"}`, `[2:3]={a,b}`, "{", `{"`, `{a,,}`, "{{a},{b}}"} {
		f.Add(s, "b")
	}
	column := driver.Column{Kind: driver.KindJSON, Type: reflect.TypeFor[[]string]()}
	f.Fuzz(func(t *testing.T, a, b string) {
		fromArray(column, a)
		want := []string{strings.ToValidUTF8(a, ""), strings.ToValidUTF8(b, "")} // nothing else gets here
		list, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		array, err := arrayOf(string(list))
		if err != nil {
			t.Fatal(err)
		}
		text, _ := fromArray(column, array).(string)
		var got []string
		if err := json.Unmarshal([]byte(text), &got); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q came back as %q by %s, %v", want, got, array, err)
		}
	})
}
