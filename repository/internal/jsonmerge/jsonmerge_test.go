package jsonmerge

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestMergeKeepsUnknownFields(t *testing.T) {
	for _, c := range []struct{ name, stored, before, after, want string }{
		{"a field of a newer version stays", `{"a":1,"new":{"x":[1]}}`, `{"a":1}`, `{"a":2}`, `{"a":2,"new":{"x":[1]}}`},
		{"a field that is removed goes", `{"a":1,"b":2,"new":3}`, `{"a":1,"b":2}`, `{"a":1}`, `{"a":1,"new":3}`},
		{"nested objects", `{"in":{"a":1,"new":2}}`, `{"in":{"a":1}}`, `{"in":{"a":5}}`, `{"in":{"a":5,"new":2}}`},
		{"a nested object that is removed", `{"in":{"a":1,"new":2}}`, `{"in":{"a":1}}`, `{"in":null}`, `{"in":null}`},
		{"a field in another case is known", `{"Name":"x"}`, `{"name":"x"}`, `{"name":"y"}`, `{"name":"y"}`},
		{"a field that this version sets", `{"a":0}`, `{}`, `{"a":7}`, `{"a":7}`},
		{"items at their place", `[{"a":1,"new":1},{"a":2,"new":2}]`, `[{"a":1},{"a":2}]`, `[{"a":1},{"a":3}]`,
			`[{"a":1,"new":1},{"a":3,"new":2}]`},
		{"items that move", `[{"a":1,"new":1},{"a":2,"new":2}]`, `[{"a":1},{"a":2}]`, `[{"a":2}]`, `[{"a":2,"new":2}]`},
		{"items that are added", `[{"a":1,"new":1}]`, `[{"a":1}]`, `[{"a":0},{"a":1}]`, `[{"a":0},{"a":1,"new":1}]`},
		{"large numbers keep their digits", `{"n":9007199254740993,"new":1e400}`, `{"n":9007199254740993}`,
			`{"n":9007199254740995}`, `{"n":9007199254740995,"new":1e400}`},
		{"another shape", `{"a":1}`, `{"a":1}`, `[1]`, `[1]`},
		{"no JSON", `{`, `{}`, `{"a":1}`, `{"a":1}`},
		{"nothing was stored", ``, `null`, `{"a":1}`, `{"a":1}`},
		{"HTML", `{"a":"<b>","new":"&"}`, `{"a":"<b>"}`, `{"a":"<i>"}`, `{"a":"\u003ci\u003e","new":"\u0026"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := Merge(c.stored, c.before, c.after); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// A large document takes time in proportion to its size: a comparison of all with all would take minutes here.
func TestMergeOfALargeDocument(t *testing.T) {
	doc := func(extra string, change int) string {
		var b strings.Builder
		b.WriteString(`{"list":[`)
		for i := range 20_000 {
			n := i
			if i == change {
				n = -1
			}
			fmt.Fprintf(&b, `{"n":%d%s},`, n, extra)
		}
		b.WriteString(`{}],"map":{`)
		for i := range 20_000 {
			fmt.Fprintf(&b, `"key%d":{"n":%d%s},`, i, i, extra)
		}
		b.WriteString(`"last":{}}}`)
		return b.String()
	}
	got := Merge(doc(`,"new":true`, -1), doc("", -1), doc("", 7))
	if want := doc(`,"new":true`, 7); got != want {
		t.Errorf("%d bytes, want %d that differ in one number", len(got), len(want))
	}
}

// What this version knows of is as it wrote it, and what it does not know of is as it was.
func TestMergeKeepsBoth(t *testing.T) {
	type old struct {
		A int            `json:"a,omitempty"`
		B []string       `json:"b"`
		M map[string]int `json:"m"`
	}
	type newer struct {
		old
		C map[string]bool `json:"c"`
	}
	rapid.Check(t, func(t *rapid.T) {
		draw := rapid.Custom(func(t *rapid.T) old {
			return old{rapid.IntRange(0, 2).Draw(t, "a"), rapid.SliceOfN(rapid.StringN(0, 3, -1), 0, 2).Draw(t, "b"),
				rapid.MapOfN(rapid.StringMatching(`[a-c]`), rapid.Int(), 0, 3).Draw(t, "m")}
		})
		was, is := draw.Draw(t, "before"), draw.Draw(t, "after")
		c := rapid.MapOfN(rapid.StringMatching(`[a-c]`), rapid.Bool(), 0, 3).Draw(t, "new")
		text := func(v any) string {
			raw, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			return string(raw)
		}
		var got newer
		if err := json.Unmarshal([]byte(Merge(text(newer{was, c}), text(was), text(is))), &got); err != nil {
			t.Fatal(err)
		}
		if text(got) != text(newer{is, c}) {
			t.Fatalf("got %s, want %s", text(got), text(newer{is, c}))
		}
	})
}
