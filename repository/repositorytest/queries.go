package repositorytest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/memrepo"
)

func seed(t *testing.T, r repo, n int, set func(i int, w *Widget)) []Widget {
	t.Helper()
	out := make([]Widget, n)
	for i := range out {
		w := Widget{SKU: fmt.Sprintf("s-%05d", i)}
		set(i, &w)
		out[i] = must[Widget](t)(r.Create(t.Context(), w))
	}
	return out
}

// fill is seed for many: by several at once, or in few transactions.
func fill(t *testing.T, r repo, f Features, n int, set func(i int, w *Widget)) []Widget {
	t.Helper()
	workers, inTx := 16, func(ctx context.Context, fn func(context.Context) error) error { return fn(ctx) }
	if f.InTx != nil {
		workers, inTx = 1, func(ctx context.Context, fn func(context.Context) error) error { return f.InTx(ctx, r, fn) }
	}
	out := make([]Widget, n)
	var wg sync.WaitGroup
	for k := range workers {
		wg.Go(func() {
			err := inTx(t.Context(), func(ctx context.Context) (err error) {
				for i := k; i < n && err == nil; i += workers {
					w := Widget{SKU: fmt.Sprintf("s-%05d", i)}
					set(i, &w)
					out[i], err = r.Create(ctx, w)
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	if wg.Wait(); t.Failed() {
		t.FailNow()
	}
	return out
}

func filters(t *testing.T, r repo, _ Features) {
	at := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	seed(t, r, 10, func(i int, w *Widget) {
		w.Name = []string{"Lamp", "lamp", "La", "Zebra", "Äpfel", "a%b", "a_b", "", "Lamp post", "[x]"}[i]
		w.Price, w.Small, w.Weight, w.Active = int64(i-5), uint32(i), float64(i)/2, i%2 == 0
		w.Color = Color([]string{"red", "green"}[i%2])
		w.Made = at.AddDate(0, 0, i)
		if i%3 == 0 {
			w.Rank, w.Note, w.Sold = ptr(int64(i)), ptr("x"), ptr(at.AddDate(0, 0, i))
		}
	})
	for _, c := range []struct {
		what string
		f    repository.Filter[Widget]
		want int64
	}{
		{"all", repository.Filter[Widget]{}, 10},
		{"Eq", Name.Eq("Lamp"), 1},
		{"Eq of a named type", Colors.Eq("red"), 5},
		{"Ne", Colors.Ne("red"), 5},
		{"HasPrefix", Name.HasPrefix("La"), 3},
		{"HasPrefix with a wildcard", Name.HasPrefix("a%"), 1},
		{"HasPrefix with a pattern", Name.HasPrefix("[x"), 1},
		{"HasPrefix of nothing", Name.HasPrefix(""), 10},
		{"HasPrefix beyond ASCII", Name.HasPrefix("Ä"), 1},
		{"text by its bytes", Name.Gt("Z"), 6},
		{"In", SKU.In("s-00001", "s-00002", "none"), 2},
		{"In of none", SKU.In(), 0},
		{"Lt", Price.Lt(0), 5},
		{"Lte", Price.Lte(0), 6},
		{"Gt", Price.Gt(0), 4},
		{"Gte", Price.Gte(0), 5},
		{"unsigned", Small.Gte(9), 1},
		{"float", Weight.Eq(4.5), 1},
		{"bool", Active.Eq(true), 5},
		{"time", Made.After(at.AddDate(0, 0, 4)), 5},
		{"IsNull", Rank.IsNull(), 6},
		{"NotNull", Note.NotNull(), 4},
		{"comparison with NULL", Rank.Lt(100), 4},
		{"negated comparison with NULL", repository.Not(Rank.Lt(100)), 6},
		{"nullable time", Sold.Gt(at), 3},
		{"Ne leaves NULL out", repository.Not(Note.Eq("x")), 6},
		{"And", Active.Eq(true).And(Price.Gt(0), Name.Ne("")), 2},
		{"Or", Price.Eq(0).Or(Price.Eq(1), Name.Eq("lamp")), 3},
		{"Not of And", repository.Not(Active.Eq(true).And(Price.Gt(0))), 8},
		{"nothing and all", SKU.In().Or(repository.Filter[Widget]{}), 10},
		{"injection", Name.Eq("' OR 1=1 --"), 0},
	} {
		n, err := r.Count(t.Context(), c.f)
		if err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		page, err := r.Find(t.Context(), repository.Query[Widget]{Where: c.f})
		if err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		if n != c.want || int64(len(page.Items)) != c.want {
			t.Errorf("%s: counted %d, found %d, want %d", c.what, n, len(page.Items), c.want)
		}
	}
}

func hostileFields(t *testing.T, r repo, _ Features) {
	for _, name := range []string{"", "none", "name; DROP TABLE widgets", "$where", "meta.id", "Name", "skipped",
		"private", "tags", strings.Repeat("x", 1<<16)} {
		_, err := repository.Named[Widget](name)
		wantErr(t, "Named of "+name[:min(len(name), 30)], err, repository.ErrQuery)
	}
	elsewhere := "x"
	for _, f := range []repository.Filter[Widget]{
		repository.Text(func(*Widget) *string { return &elsewhere }).Eq("x"),
		repository.Text(func(w *Widget) *string { return &w.Skipped }).Eq("x"),
		Name.Eq("x").And(repository.Text(func(*Widget) *string { return nil }).Eq("x")),
	} {
		_, err := r.Count(t.Context(), f)
		wantErr(t, "Count by an unmapped field", err, repository.ErrQuery)
		_, err = r.Find(t.Context(), repository.Query[Widget]{Where: f})
		wantErr(t, "Find by an unmapped field", err, repository.ErrQuery)
	}
	n := must[repository.NamedField[Widget]](t)(repository.Named[Widget]("other_name"))
	for _, v := range []any{5, nil, []string{"x"}, map[string]any{"$gt": ""}, struct{}{}} {
		if _, err := n.Eq(v); !errors.Is(err, repository.ErrQuery) {
			t.Fatalf("a %T for text: %v", v, err)
		}
	}
}

// strangeValues asks for, and stores, text that not every database can hold. Where one cannot, there is none of it, and
// storing it is refused by name.
func strangeValues(t *testing.T, r repo, _ Features) {
	strangeNumbers(t, r)
	must[Widget](t)(r.Create(t.Context(), Widget{Meta: repository.Meta{ID: "lamp"}, SKU: "lamp", Name: "lamp"}))
	lamps := SKU.Eq("lamp")
	for _, s := range []string{"la\x00mp", "\x00", "la\xff", "\xff\xff", "\xed\xa0\x80"} {
		for what, err := range map[string]error{
			"Get":     second(r.Get(t.Context(), s)),
			"Update":  second(r.Update(t.Context(), s, func(context.Context, *Widget) error { return nil })),
			"Replace": second(r.Replace(t.Context(), Widget{Meta: repository.Meta{ID: s, Version: 1}})),
			"Delete":  r.Delete(t.Context(), s),
		} {
			wantErr(t, fmt.Sprintf("%s of %q", what, s), err, repository.ErrNotFound)
		}
		if got := must[[]Widget](t)(r.GetMany(t.Context(), []string{s, "lamp", s})); len(got) != 1 || got[0].ID != "lamp" {
			t.Errorf("GetMany with %q found %d", s, len(got))
		}
		for i, c := range []struct {
			f    repository.Filter[Widget]
			want int64
		}{
			{Name.Eq(s), 0}, {lamps.And(Name.Ne(s)), 1}, {lamps.And(repository.Not(Name.Eq(s))), 1}, {Name.In(s), 0},
			{Name.In(s, "lamp"), 1}, {Name.HasPrefix(s), 0},
			{Note.Eq(s), 0}, {Name.Eq(s).Or(Name.HasPrefix("la")), 1},
		} {
			if n := must[int64](t)(r.Count(t.Context(), c.f)); n != c.want {
				t.Errorf("filter %d with %q counts %d, want %d", i, s, n, c.want)
			}
		}
		if _, err := r.Count(t.Context(), Name.Gt(s)); err != nil {
			wantErr(t, fmt.Sprintf("Gt of %q", s), err, repository.ErrQuery)
		}
		w, err := r.Create(t.Context(), Widget{SKU: s, Name: s + "!", Tags: []string{"a\x00b"}})
		if err != nil {
			wantErr(t, fmt.Sprintf("Create with %q", s), err, repository.ErrValue)
			_, err = r.Update(t.Context(), "lamp", func(_ context.Context, w *Widget) error { w.Name = s; return nil })
			wantErr(t, fmt.Sprintf("Update to %q", s), err, repository.ErrValue)
			continue
		}
		if got := must[Widget](t)(r.Get(t.Context(), w.ID)); got.Name != s+"!" {
			t.Errorf("%q came back as %q", s+"!", got.Name)
		}
		if n := must[int64](t)(r.Count(t.Context(), Name.HasPrefix(s))); n != 1 {
			t.Errorf("%d begin with %q, want 1", n, s)
		}
		if err := r.Delete(t.Context(), w.ID); err != nil {
			t.Fatal(err)
		}
	}
}

// strangeNumbers stores numbers at the ends, and beyond them.
func strangeNumbers(t *testing.T, r repo) {
	for i, f := range []float64{math.NaN(), math.Inf(1), math.Inf(-1), math.MaxFloat64, math.SmallestNonzeroFloat64,
		math.Copysign(0, -1)} {
		w, err := r.Create(t.Context(), Widget{SKU: fmt.Sprint("number", i), Weight: f, Price: math.MinInt64,
			Small: math.MaxUint32})
		if err != nil {
			wantErr(t, fmt.Sprintf("Create with %v", f), err, repository.ErrValue)
			continue
		}
		got := must[Widget](t)(r.Get(t.Context(), w.ID))
		if same := got.Weight == f || math.IsNaN(f) && math.IsNaN(got.Weight); !same || got.Price != math.MinInt64 ||
			got.Small != math.MaxUint32 {
			t.Errorf("%v came back as %v, with %d and %d", f, got.Weight, got.Price, got.Small)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// randomQueries compares the adapter with memrepo on random data and random filters, page by page.
func randomQueries(t *testing.T, r repo, f Features) {
	model := memrepo.Must(memrepo.New[Widget](memrepo.Config{}))
	words := []string{"", "a", "A", "ab", "a%", "a_", "ä", "Z", "z", "0", "é", "\U0001F600", "a\\", "'", "$a", "a.b", "a.",
		"axb", "("}
	seed := time.Now().UnixNano()
	t.Logf("data of seed %d", seed)
	draw := rand.New(rand.NewPCG(uint64(seed), 1))
	for i := range 60 {
		w := Widget{SKU: fmt.Sprint(i), Name: words[draw.IntN(len(words))], Price: int64(draw.IntN(7) - 3),
			Small: draw.Uint32N(3), Weight: float64(draw.IntN(5)) / 4,
			Active: draw.IntN(2) == 0, Color: Color(words[draw.IntN(3)]), Made: time.UnixMilli(int64(draw.IntN(9) - 4))}
		if draw.IntN(2) == 0 {
			w.Rank = ptr(int64(draw.IntN(4) - 1))
		}
		if draw.IntN(3) > 0 {
			w.Note = &words[draw.IntN(len(words))]
		}
		if draw.IntN(3) > 0 {
			w.Sold = ptr(time.UnixMilli(int64(draw.IntN(9) - 4)))
		}
		w.Place = Place{City: words[draw.IntN(len(words))], Zip: int64(draw.IntN(5) - 2), Lat: float64(draw.IntN(5)) / 4,
			Open: draw.IntN(2) == 0}
		if draw.IntN(3) > 0 {
			w.Place.Unit = &words[draw.IntN(len(words))]
		}
		for range draw.IntN(3) {
			w.Tags = append(w.Tags, words[draw.IntN(len(words))])
			w.Place.Labels = append(w.Place.Labels, Color(words[draw.IntN(len(words))]))
		}
		w = must[Widget](t)(r.Create(t.Context(), w))
		must[Widget](t)(model.Create(t.Context(), w))
	}
	filter := randomFilter(words)
	rapid.Check(t, func(rt *rapid.T) {
		q := repository.Query[Widget]{Where: filter(3).Draw(rt, "filter"), Sort: rapid.SampledFrom(orders).Draw(rt,
			"order").sort, Limit: rapid.IntRange(1, 50).Draw(rt, "limit")}
		page := func(r repo, q repository.Query[Widget]) (ids []string, next string) {
			page, err := r.Find(t.Context(), q)
			if err != nil {
				rt.Fatal(err)
			}
			for _, w := range page.Items {
				ids = append(ids, w.ID)
			}
			return ids, page.Next
		}
		for range 2 {
			got, next := page(r, q)
			want, modelNext := page(model, q)
			if !slices.Equal(got, want) || (next == "") != (modelNext == "") {
				rt.Fatalf("found %v, the model %v; more: %v and %v", got, want, next != "", modelNext != "")
			}
			if next == "" {
				break
			}
			q.After = next
		}
		if n, err := r.Count(t.Context(), q.Where); err != nil || n != must[int64](t)(model.Count(t.Context(), q.Where)) {
			rt.Fatalf("counted %d, another number than the model (%v)", n, err)
		}
	})
}

// randomFilter generates filters, up to so many levels deep.
func randomFilter(words []string) func(depth int) *rapid.Generator[repository.Filter[Widget]] {
	word := rapid.SampledFrom(words)
	number := rapid.Int64Range(-4, 4)
	type filter = repository.Filter[Widget]
	leaves := []func(t *rapid.T) filter{
		func(t *rapid.T) filter { return Name.Eq(word.Draw(t, "v")) },
		func(t *rapid.T) filter { return Name.Ne(word.Draw(t, "v")) },
		func(t *rapid.T) filter { return Name.HasPrefix(word.Draw(t, "v")) },
		func(t *rapid.T) filter { return Name.Contains(word.Draw(t, "v")) },
		func(t *rapid.T) filter { return Name.ContainsFold(word.Draw(t, "v")) },
		func(t *rapid.T) filter { return Made.Ne(time.UnixMilli(number.Draw(t, "v"))) },
		func(t *rapid.T) filter { return Made.Until(time.UnixMilli(number.Draw(t, "v"))) },
		func(t *rapid.T) filter { return Rank.Lte(number.Draw(t, "v")) },
		func(t *rapid.T) filter { return Rank.Gte(number.Draw(t, "v")) },
		func(t *rapid.T) filter { return Rank.Ne(number.Draw(t, "v")) },
		func(t *rapid.T) filter { return Rank.In(rapid.SliceOfN(number, 0, 3).Draw(t, "v")...) },
		func(t *rapid.T) filter { return Name.Gt(word.Draw(t, "v")) },
		func(t *rapid.T) filter { return Name.Lte(word.Draw(t, "v")) },
		func(t *rapid.T) filter { return Name.In(rapid.SliceOfN(word, 0, 3).Draw(t, "v")...) },
		func(t *rapid.T) filter { return Colors.Ne(Color(word.Draw(t, "v"))) },
		func(t *rapid.T) filter { return Price.Lte(number.Draw(t, "v")) },
		func(t *rapid.T) filter { return Price.Ne(number.Draw(t, "v")) },
		func(t *rapid.T) filter { return Price.In(rapid.SliceOfN(number, 0, 3).Draw(t, "v")...) },
		func(t *rapid.T) filter { return Small.Gt(rapid.Uint32Range(0, 3).Draw(t, "v")) },
		func(t *rapid.T) filter { return Weight.Lt(float64(number.Draw(t, "v")) / 4) },
		func(t *rapid.T) filter { return Active.Eq(rapid.Bool().Draw(t, "v")) },
		func(t *rapid.T) filter { return Rank.Lt(number.Draw(t, "v")) },
		func(t *rapid.T) filter { return Rank.Eq(number.Draw(t, "v")) },
		func(*rapid.T) filter { return Note.IsNull() },
		func(t *rapid.T) filter { return Note.Gt(word.Draw(t, "v")) },
		func(*rapid.T) filter { return Sold.NotNull() },
		func(t *rapid.T) filter { return Sold.Lt(time.UnixMilli(number.Draw(t, "v"))) },
		func(t *rapid.T) filter { return Made.Since(time.UnixMilli(number.Draw(t, "v"))) },
		func(t *rapid.T) filter { return Tags.Contains(word.Draw(t, "v")) },
		func(t *rapid.T) filter { return Labels.Contains(Color(word.Draw(t, "v"))) },
		func(t *rapid.T) filter { return City.Eq(word.Draw(t, "v")) },
		func(t *rapid.T) filter { return City.Gt(word.Draw(t, "v")) },
		func(t *rapid.T) filter { return City.HasPrefix(word.Draw(t, "v")) },
		func(t *rapid.T) filter { return City.ContainsFold(word.Draw(t, "v")) },
		func(t *rapid.T) filter { return Zip.Lte(number.Draw(t, "v")) },
		func(t *rapid.T) filter { return Zip.In(rapid.SliceOfN(number, 0, 3).Draw(t, "v")...) },
		func(t *rapid.T) filter { return Lat.Gt(float64(number.Draw(t, "v")) / 4) },
		func(t *rapid.T) filter { return Open.Eq(rapid.Bool().Draw(t, "v")) },
		func(*rapid.T) filter { return Unit.IsNull() },
		func(t *rapid.T) filter { return Unit.Ne(word.Draw(t, "v")) },
		func(t *rapid.T) filter { return Made.Eq(time.UnixMilli(number.Draw(t, "v"))) },
	}
	var generate func(depth int) *rapid.Generator[filter]
	generate = func(depth int) *rapid.Generator[filter] {
		return rapid.Custom(func(t *rapid.T) filter {
			if depth == 0 || rapid.Bool().Draw(t, "leaf") {
				return rapid.SampledFrom(leaves).Draw(t, "kind")(t)
			}
			a := generate(depth-1).Draw(t, "a")
			switch rapid.IntRange(0, 2).Draw(t, "op") {
			case 0:
				return a.And(generate(depth-1).Draw(t, "b"))
			case 1:
				return a.Or(generate(depth-1).Draw(t, "b"))
			}
			return repository.Not(a)
		})
	}
	return generate
}
