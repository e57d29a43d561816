package repositorytest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sillar-go/sillar/repository"
)

// orders are the sort orders that paging is checked in, with the same order in Go.
var orders = []struct {
	name string
	sort []repository.Sort[Widget]
	less func(a, b Widget) int
}{
	{"by id", nil, func(a, b Widget) int { return strings.Compare(a.ID, b.ID) }},
	{"by price, then id downwards", []repository.Sort[Widget]{Price.Asc(), ID.Desc()}, func(a, b Widget) int {
		if a.Price != b.Price {
			return int(a.Price - b.Price)
		}
		return -strings.Compare(a.ID, b.ID)
	}},
	{"by price downwards, and so by id", []repository.Sort[Widget]{Price.Desc()}, func(a, b Widget) int {
		if a.Price != b.Price {
			return int(b.Price - a.Price)
		}
		return -strings.Compare(a.ID, b.ID)
	}},
	{"by name, then rank with NULLs", []repository.Sort[Widget]{Name.Asc(), Rank.Asc()}, func(a, b Widget) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		if c := compareRank(a, b); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	}},
	{"by rank with NULLs and name downwards", []repository.Sort[Widget]{Rank.Desc(), Name.Desc()},
		func(a, b Widget) int {
			if c := compareRank(a, b); c != 0 {
				return -c
			}
			if c := strings.Compare(a.Name, b.Name); c != 0 {
				return -c
			}
			return -strings.Compare(a.ID, b.ID)
		}},
	{"by a city, downwards", []repository.Sort[Widget]{City.Desc()}, func(a, b Widget) int {
		if c := strings.Compare(a.Place.City, b.Place.City); c != 0 {
			return -c
		}
		return -strings.Compare(a.ID, b.ID)
	}},
	{"by a unit with NULLs, then zip", []repository.Sort[Widget]{Unit.Asc(), Zip.Asc()}, func(a, b Widget) int {
		return cmp.Or(compareUnit(a, b), cmp.Compare(a.Place.Zip, b.Place.Zip), strings.Compare(a.ID, b.ID))
	}},
	{"by rank with NULLs", []repository.Sort[Widget]{Rank.Asc()}, func(a, b Widget) int {
		if c := compareRank(a, b); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	}},
	{"by rank downwards, then name", []repository.Sort[Widget]{Rank.Desc(), Name.Asc()}, func(a, b Widget) int {
		if c := compareRank(a, b); c != 0 {
			return -c
		}
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	}},
}

func compareUnit(a, b Widget) int {
	switch {
	case a.Place.Unit == nil && b.Place.Unit == nil:
		return 0
	case a.Place.Unit == nil:
		return -1
	case b.Place.Unit == nil:
		return 1
	}
	return strings.Compare(*a.Place.Unit, *b.Place.Unit)
}

func compareRank(a, b Widget) int {
	switch {
	case a.Rank == nil && b.Rank == nil:
		return 0
	case a.Rank == nil:
		return -1
	case b.Rank == nil:
		return 1
	}
	return int(*a.Rank - *b.Rank)
}

func paging(t *testing.T, r repo, _ Features) {
	all := seed(t, r, 57, func(i int, w *Widget) {
		w.Price, w.Name = int64(i%5), string(rune('A'+i%7))
		if i%4 != 0 {
			w.Rank = ptr(int64(i % 3))
			w.Place.Unit = ptr([]string{"b", "", "B"}[i%3])
		}
		w.Place.City, w.Place.Zip = []string{"x", "", "X", "\u00e4"}[i%4], int64(i%7-3)
	})
	walkBoth(t, r, all)
	page := must[repository.Page[Widget]](t)(r.Find(t.Context(), repository.Query[Widget]{Offset: 50}))
	if len(page.Items) != 7 {
		t.Fatalf("from offset 50 on: %d entities, want 7", len(page.Items))
	}
	each := r.Each(t.Context(), repository.Query[Widget]{Where: Price.Gt(0), Limit: 10})
	for range 2 { // it begins anew each time
		n := 0
		for _, err := range each {
			if err != nil {
				t.Fatal(err)
			}
			if n++; n == 30 {
				break
			}
		}
		if n != 30 {
			t.Fatalf("Each yielded %d, want 30 before the break", n)
		}
	}
	for _, q := range []repository.Query[Widget]{{Limit: -1}, {Limit: repository.MaxLimit + 1}, {Offset: -1},
		{Offset: repository.MaxOffset + 1}} {
		_, err := r.Find(t.Context(), q)
		wantErr(t, fmt.Sprintf("%+v", q), err, repository.ErrQuery)
	}
}

// walkBoth walks the pages in each order, both ways.
func walkBoth(t *testing.T, r repo, all []Widget) {
	t.Helper()
	for _, o := range orders {
		want := slices.Clone(all)
		sort.Slice(want, func(i, j int) bool { return o.less(want[i], want[j]) < 0 })
		for _, limit := range []int{1, 7, 57, 58} {
			var got []string
			q := repository.Query[Widget]{Sort: o.sort, Limit: limit}
			for {
				page := must[repository.Page[Widget]](t)(r.Find(t.Context(), q))
				if len(page.Items) > limit {
					t.Fatalf("%s: a page of %d, limit %d", o.name, len(page.Items), limit)
				}
				for _, w := range page.Items {
					got = append(got, w.ID)
				}
				if page.Next == "" {
					break
				}
				q.After = page.Next
			}
			if len(got) != len(want) {
				t.Fatalf("%s, limit %d: walked %d of %d", o.name, limit, len(got), len(want))
			}
			for i := range want {
				if got[i] != want[i].ID {
					t.Fatalf("%s, limit %d: place %d holds another entity than it should", o.name, limit, i)
				}
			}
		}
	}
}

// pagingUnderWrites: what is there throughout a walk is seen exactly once, in order, whatever comes and goes beside it.
func pagingUnderWrites(t *testing.T, r repo, f Features) {
	rows := 10_000
	if testing.Short() {
		rows = 500
	}
	stay := fill(t, r, f, rows, func(i int, w *Widget) {
		w.Price = int64(i % 10)
		if i%3 == 0 {
			w.Rank = ptr(int64(i % 2))
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	var came atomic.Int64
	for k := range 2 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				time.Sleep(time.Millisecond) // enough come and go, and the walk has the processor
				w, err := r.Create(t.Context(), Widget{SKU: fmt.Sprintf("x-%d-%d", k, i), Price: int64(i % 10),
					Rank: ptr(int64(i % 2))})
				if err == nil && i%3 > 0 {
					err = r.Delete(t.Context(), w.ID)
				}
				if err != nil {
					t.Error(err)
					return
				}
				came.Add(1)
			}
		})
	}
	seen := map[string]int{}
	var last Widget
	for w, err := range r.Each(t.Context(), repository.Query[Widget]{Sort: []repository.Sort[Widget]{Price.Desc(),
		Rank.Asc()}, Limit: rows / 10}) {
		if err != nil {
			t.Error(err)
			break
		}
		if seen[w.ID]++; len(seen) > 1 && (w.Price > last.Price || w.Price == last.Price && compareRank(last, w) > 0) {
			t.Errorf("price %d after %d, or its rank out of order", w.Price, last.Price)
			break
		}
		last = w
		if len(seen)%(rows/20) == 0 { // the walk does not outrun the writers
			enough, end := came.Load()+6, time.Now().Add(2*time.Second)
			for came.Load() < enough && time.Now().Before(end) {
				time.Sleep(time.Millisecond)
			}
		}
	}
	cancel()
	wg.Wait()
	for _, w := range stay {
		if seen[w.ID] != 1 {
			t.Fatalf("an entity that was there all the time was seen %d times", seen[w.ID])
		}
	}
}

func cursors(t *testing.T, r repo, _ Features) {
	seed(t, r, 5, func(i int, w *Widget) { w.Price = int64(i) })
	q := repository.Query[Widget]{Where: Price.Gte(0), Sort: []repository.Sort[Widget]{Price.Asc()}, Limit: 2}
	next := must[repository.Page[Widget]](t)(r.Find(t.Context(), q)).Next
	for what, bad := range map[string]repository.Query[Widget]{
		"another filter":  {Where: Price.Gte(1), Sort: q.Sort, After: next},
		"another sort":    {Where: q.Where, Sort: []repository.Sort[Widget]{Price.Desc()}, After: next},
		"no sort":         {Where: q.Where, After: next},
		"cut":             {Where: q.Where, Sort: q.Sort, After: next[:len(next)-2]},
		"changed":         {Where: q.Where, Sort: q.Sort, After: flip(next)},
		"not base64":      {Where: q.Where, Sort: q.Sort, After: "%%%"},
		"long":            {Where: q.Where, Sort: q.Sort, After: strings.Repeat("A", 5<<20)},
		"plain injection": {Where: q.Where, Sort: q.Sort, After: "' OR 1=1"},
	} {
		_, err := r.Find(t.Context(), bad)
		wantErr(t, what, err, repository.ErrCursor)
	}
	q.After = next
	if page := must[repository.Page[Widget]](t)(r.Find(t.Context(), q)); len(page.Items) != 2 || page.Items[0].Price != 2 {
		t.Fatalf("the good cursor: %v", page.Items)
	}
}

var strangeSorts = map[string][]repository.Sort[Widget]{
	"name": {Name.Asc()}, "name down": {Name.Desc()}, "weight, name": {Weight.Asc(), Name.Desc()},
	"weight down": {Weight.Desc()},
}

// strangeKeys pages by sort keys that are long, no UTF-8, or at the ends of their type: each entity comes once.
func strangeKeys(t *testing.T, r repo, _ Features) {
	names := []string{"", "a", "a\xff", "a\xfe\xff", "\xff", "b\x00", "b", "\ufffd", strings.Repeat("x", 6000),
		strings.Repeat("x", 6000) + "y", strings.Repeat("\u6f22", 3000), "z"}
	stored := map[string]bool{}
	for i, name := range names {
		w, err := r.Create(t.Context(), Widget{SKU: fmt.Sprint("key", i), Name: name, Weight: []float64{math.Inf(1),
			math.Inf(-1), math.MaxFloat64}[i%3]})
		if err != nil { // a database that holds no such text
			wantErr(t, fmt.Sprintf("Create with %.10q", name), err, repository.ErrValue)
			continue
		}
		stored[w.ID] = true
	}
	for name, by := range strangeSorts {
		seen := map[string]bool{}
		for w, err := range r.Each(t.Context(), repository.Query[Widget]{Sort: by, Limit: 1}) {
			if err != nil {
				t.Errorf("by %s: after %d entities: %v", name, len(seen), err)
				break
			}
			if seen[w.ID] {
				t.Fatalf("by %s: %.10q comes twice", name, w.Name)
			}
			seen[w.ID] = true
		}
		if len(seen) != len(stored) {
			t.Errorf("by %s: got %d entities, want %d", name, len(seen), len(stored))
		}
	}
	if _, err := r.Create(t.Context(), Widget{SKU: "nan", Weight: math.NaN()}); !errors.Is(err, repository.ErrValue) {
		t.Errorf("a number that has no place in an order: got %v, want ErrValue", err)
	}
}

// endedContext calls everything with a context that has ended.
func endedContext(t *testing.T, r repo, _ Features) {
	w := must[Widget](t)(r.Create(t.Context(), Widget{SKU: "a"}))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	hook := func(context.Context, *Widget) error { return nil }
	for name, err := range map[string]error{
		"Create": second(r.Create(ctx, Widget{SKU: "b"})), "Get": second(r.Get(ctx, w.ID)),
		"GetMany": second(r.GetMany(ctx, []string{w.ID})), "Count": second(r.Count(ctx, repository.Filter[Widget]{})),
		"Find": second(r.Find(ctx, repository.Query[Widget]{})), "Update": second(r.Update(ctx, w.ID, hook)),
		"Replace": second(r.Replace(ctx, w)), "Delete": r.Delete(ctx, w.ID),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v, want context.Canceled", name, err)
		}
	}
	if n := must[int64](t)(r.Count(t.Context(), repository.Filter[Widget]{})); n != 1 {
		t.Errorf("afterwards there are %d entities, want 1", n)
	}
	many := make([]string, repository.MaxValues+1)
	if _, err := r.Count(t.Context(), Name.In(many...)); !errors.Is(err, repository.ErrQuery) {
		t.Errorf("In with %d values: got %v, want ErrQuery", len(many), err)
	}
}

func flip(s string) string {
	b := []byte(s)
	if b[20] == 'A' {
		b[20] = 'B'
	} else {
		b[20] = 'A'
	}
	return string(b)
}
