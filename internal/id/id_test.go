package id_test

import (
	"sort"
	"testing"

	"github.com/sillar-go/sillar/internal/id"
)

func TestNewSortsByTime(t *testing.T) {
	ids := make([]string, 1000)
	for i := range ids {
		ids[i] = id.New()
		if !id.Valid(ids[i]) {
			t.Fatalf("New made %q, which Valid refuses", ids[i])
		}
	}
	if !sort.StringsAreSorted(ids) {
		t.Fatal("ids made one after the other do not sort in that order")
	}
}

func TestValidRefuses(t *testing.T) {
	for _, s := range []string{"", "x", "{01234567-89ab-7def-8123-456789abcdef}", "0123456789ab7def8123456789abcdef", "01234567-89ab-7def-8123-456789abcdeg"} {
		if id.Valid(s) {
			t.Errorf("Valid(%q) = true", s)
		}
	}
}
