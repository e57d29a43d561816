package repositorytest

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sillar-go/sillar/repository"
)

// distinct lists the values of fields of every kind, under a filter, in order, and up to a limit.
func distinct(t *testing.T, r repo, _ Features) {
	at := time.Date(2020, 1, 2, 3, 4, 5, 6_000_000, time.UTC)
	for i, w := range []Widget{
		{Name: "b", Price: 2, Weight: -1.5, Active: true, Made: at, Rank: ptr(int64(-3)), Place: Place{City: "Lima", Zip: 7}},
		{Name: "a", Price: -1, Weight: 2, Active: true, Made: at.Add(time.Hour), Place: Place{City: "Cusco", Unit: ptr("x")}},
		{Name: "b", Price: 2, Weight: 2, Made: at, Rank: ptr(int64(9)), Sold: &at, Place: Place{City: "Lima", Zip: -7}},
		{Name: "B", Price: 10, Weight: 0, Active: true, Made: at.Add(-time.Hour), Rank: ptr(int64(-3)),
			Place: Place{City: "", Unit: ptr("")}},
		{Name: "ñ", Price: 2, Active: true, Made: at, Note: ptr("n"), Place: Place{City: "Lima"}},
	} {
		w.SKU = fmt.Sprint(i)
		must[Widget](t)(r.Create(t.Context(), w))
	}
	all := repository.Filter[Widget]{}
	values(t, "text", []string{"B", "a", "b", "ñ"}, r, Name, all)
	values(t, "numbers", []int64{-1, 2, 10}, r, Price, all)
	values(t, "numbers under a filter", []int64{-1, 2}, r, Price, Active.Eq(true).And(Price.Lt(10)))
	values(t, "numbers of entities of which there are none", nil, r, Price, Name.Eq("none"))
	values(t, "floats", []float64{-1.5, 0, 2}, r, Weight, all)
	values(t, "times", []time.Time{at.Add(-time.Hour), at, at.Add(time.Hour)}, r, Made, all)
	values(t, "numbers that may be NULL", []int64{-3, 9}, r, Rank, all)
	values(t, "text that is mostly NULL", []string{"n"}, r, Note, all)
	values(t, "times that are mostly NULL", []time.Time{at}, r, Sold, all)
	values(t, "text in JSON", []string{"", "Cusco", "Lima"}, r, City, all)
	values(t, "numbers in JSON", []int64{-7, 0, 7}, r, Zip, all)
	values(t, "text in JSON that may be NULL", []string{"", "x"}, r, Unit, all)
	two := must[[]int64](t)(repository.Distinct(t.Context(), r, Price, all, 2))
	if d := cmp.Diff([]int64{-1, 2}, two); d != "" {
		t.Errorf("the first two (-want +got):\n%s", d)
	}
	for _, limit := range []int{-1, repository.MaxLimit + 1} {
		_, err := repository.Distinct(t.Context(), r, Price, all, limit)
		wantErr(t, fmt.Sprint("limit ", limit), err, repository.ErrQuery)
	}
}

func values[V any](
	t *testing.T, what string, want []V, r repo, field repository.Distinguishable[Widget, V],
	where repository.Filter[Widget],
) {
	t.Helper()
	got, err := repository.Distinct(t.Context(), r, field, where, 0)
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("%s: %v (-want +got):\n%s", what, err, d)
	}
}
