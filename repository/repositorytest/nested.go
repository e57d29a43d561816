package repositorytest

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/sillar-go/sillar/repository"
)

// counts checks how many entities filters select, and that their negations select the others.
func counts(t *testing.T, r repo, all int64, filters map[string]selects) {
	t.Helper()
	for name, c := range filters {
		if n, err := r.Count(t.Context(), c.filter); n != c.want || err != nil {
			t.Errorf("%s: got %d, %v, want %d", name, n, err, c.want)
		}
		if n, err := r.Count(t.Context(), repository.Not(c.filter)); n != all-c.want || err != nil {
			t.Errorf("not %s: got %d, %v, want %d", name, n, err, all-c.want)
		}
	}
}

type selects struct {
	filter repository.Filter[Widget]
	want   int64
}

// lists selects by an element of a list: as a whole, byte by byte, and from those of the list only.
func lists(t *testing.T, r repo, _ Features) {
	for i, tags := range [][]string{nil, {}, {"new"}, {"NEW", "sale"}, {"newer", "a,b", `q"\`, "NULL", "", "{x}"},
		{`["new"]`}, {"new", "new"}} {
		must[Widget](t)(r.Create(t.Context(), Widget{SKU: fmt.Sprint(i), Tags: tags, Name: "new",
			Place: Place{Labels: []Color{Color(fmt.Sprint("l", i))}}}))
	}
	counts(t, r, 7, map[string]selects{
		"an element": {Tags.Contains("new"), 2}, "in another case": {Tags.Contains("NEW"), 1},
		"a part of one": {Tags.Contains("ne"), 0}, "with a comma": {Tags.Contains("a,b"), 1},
		"with quotes": {Tags.Contains(`q"\`), 1}, "the word NULL": {Tags.Contains("NULL"), 1},
		"no text": {Tags.Contains(""), 1}, "braces": {Tags.Contains("{x}"), 1}, "JSON": {Tags.Contains(`["new"]`), 1},
		"what no list holds": {Tags.Contains("\xff"), 0}, "NUL": {Tags.Contains("a\x00"), 0},
		"inside a struct": {Labels.Contains("l3"), 1}, "two": {Tags.Contains("NEW").And(Tags.Contains("sale")), 1},
	})
	if n := must[int64](t)(r.DeleteWhere(t.Context(), Tags.Contains("sale"))); n != 1 {
		t.Errorf("DeleteWhere by an element: got %d, want 1", n)
	}
	_, err := r.Count(t.Context(), repository.List(func(w *Widget) *[]byte { return &w.Blob }).Contains(1))
	wantErr(t, "bytes as a list", err, repository.ErrQuery)
}

// nested selects and sorts by fields inside a struct, and by their names.
func nested(t *testing.T, r repo, _ Features) {
	for i := range 8 {
		w := Widget{SKU: fmt.Sprint(i), Place: Place{City: fmt.Sprint("c", i), Zip: int64(i) - 4, Lat: float64(i) / 8,
			Open: i%2 == 0}}
		w.Place.Deep.Level = int32(10 * i)
		if i > 5 {
			w.Place.Unit = ptr("")
		}
		must[Widget](t)(r.Create(t.Context(), w))
	}
	named := must[repository.NamedField[Widget]](t)(repository.Named[Widget]("place.zip"))
	zip := must[repository.Filter[Widget]](t)(named.Where("gte", "2"))
	counts(t, r, 8, map[string]selects{
		"text": {City.Eq("c3"), 1}, "a prefix": {City.HasPrefix("c"), 8}, "text in": {City.In("c1", "c2", "C3"), 2},
		"no text": {City.Eq(""), 0}, "a number": {Zip.Lt(0), 4}, "a number of two digits": {Level.Gt(9), 7},
		"a float": {Lat.Gte(0.5), 4}, "a boolean": {Open.Eq(true), 4}, "NULL": {Unit.IsNull(), 6},
		"not NULL": {Unit.NotNull(), 2}, "a nullable": {Unit.Eq(""), 2}, "by name": {zip, 2},
		"NUL": {City.Eq("c\x00"), 0}, "injection": {City.Eq("' OR 1=1 --"), 0},
	})
	page := must[repository.Page[Widget]](t)(r.Find(t.Context(), repository.Query[Widget]{Limit: 3,
		Sort: []repository.Sort[Widget]{Level.Desc()}}))
	if len(page.Items) != 3 || page.Items[0].Place.Deep.Level != 70 || page.Items[2].Place.Deep.Level != 50 {
		t.Errorf("sorted by a nested number: got %+v", page.Items)
	}
	w := must[Widget](t)(r.Update(t.Context(), page.Items[0].ID, func(_ context.Context, w *Widget) error {
		w.Place.City = "moved"
		return nil
	}))
	if n := must[int64](t)(r.Count(t.Context(), City.Eq("moved").And(Level.Eq(70)))); n != 1 || w.Place.City != "moved" {
		t.Errorf("after an update got %d, want 1", n)
	}
	if _, err := r.UpdateWhere(t.Context(), ID.Eq(w.ID), City.To("x")); !errors.Is(err, repository.ErrQuery) {
		t.Errorf("UpdateWhere of a nested field: got %v, want ErrQuery", err)
	}
}
