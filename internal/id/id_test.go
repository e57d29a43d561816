package id_test

import (
	"sort"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

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
	for _, s := range []string{"", "x", "{01234567-89ab-7def-8123-456789abcdef}", "0123456789ab7def8123456789abcdef",
		"01234567-89ab-7def-8123-456789abcdeg"} {
		if id.Valid(s) {
			t.Errorf("Valid(%q) = true", s)
		}
	}
}

func TestTimeIsThatOfNew(t *testing.T) {
	before := time.Now().Truncate(time.Millisecond)
	got, ok := id.Time(id.New())
	if !ok || got.Before(before) || got.After(time.Now()) {
		t.Errorf("got %s, %v, want a time from %s on", got, ok, before)
	}
	for _, s := range []string{"", "x", "c56a4180-65aa-42ec-a945-5fd21dec0538", "urn:uuid:" + id.New()} {
		if _, ok := id.Time(s); ok {
			t.Errorf("Time(%q) = true", s)
		}
	}
}

func TestNewIsUniqueAcrossGoroutines(t *testing.T) {
	const each = 2000
	all := make([][]string, 8)
	var wg sync.WaitGroup
	for g := range all {
		wg.Go(func() {
			for range each {
				all[g] = append(all[g], id.New())
			}
		})
	}
	wg.Wait()
	seen, random := map[string]bool{}, map[string]bool{}
	for _, ids := range all {
		for _, s := range ids {
			u, err := uuid.Parse(s)
			if err != nil || u.Version() != 7 || u.Variant() != uuid.RFC4122 {
				t.Fatalf("%q is no UUIDv7: %v", s, err)
			}
			seen[s[:18]], random[s[19:]] = true, true
		}
	}
	if len(seen) != each*len(all) || len(random) != each*len(all) {
		t.Errorf("got %d times and %d random parts of %d ids, want no two the same", len(seen), len(random), each*len(all))
	}
}
