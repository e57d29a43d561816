package repositorytest

import (
	"context"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sillar-go/sillar/repository"
)

// Label is a part of Widget, in an order of its own.
type Label struct {
	Rank  *int64
	Place Place
	repository.Meta
	Other string `repo:"other_name"`
	Price int64
}

// RunView checks that a reader of Label shows what a repository of Widget over the same table or collection stores.
// Where the reader writes, too, it must leave alone what it does not show.
func RunView(
	t *testing.T, factory func(t testing.TB) (repository.Repository[Widget], repository.Reader[Label]), _ Features,
) {
	t.Helper()
	t.Run("Reads", func(t *testing.T) {
		widgets, labels := factory(t)
		viewReads(t, widgets, labels)
	})
	t.Run("Writes", func(t *testing.T) {
		widgets, labels := factory(t)
		if r, ok := labels.(repository.Repository[Label]); ok {
			viewWrites(t, widgets, r)
		}
	})
}

func labelOf(w Widget) Label {
	return Label{Meta: w.Meta, Rank: w.Rank, Place: w.Place, Other: w.Renamed, Price: w.Price}
}

func viewReads(t *testing.T, widgets repo, labels repository.Reader[Label]) {
	t.Helper()
	var all []Label
	for i := range 5 {
		w := Widget{SKU: fmt.Sprint(i), Name: "hidden", Price: int64(i), Renamed: fmt.Sprint("r", i), Tags: []string{"x"},
			Place: Place{City: fmt.Sprint("c", i%2), Labels: []Color{"red"}}}
		if i%2 == 0 {
			w.Rank = ptr(int64(i))
		}
		all = append(all, labelOf(must[Widget](t)(widgets.Create(t.Context(), w))))
	}
	equal := func(what string, want, got any, err error) {
		t.Helper()
		if d := cmp.Diff(want, got); d != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", what, err, d)
		}
	}
	price := repository.Ord(func(l *Label) *int64 { return &l.Price })
	rank := repository.Null(func(l *Label) **int64 { return &l.Rank })
	city := repository.Text(func(l *Label) *string { return &l.Place.City })
	got, err := labels.Get(t.Context(), all[3].ID)
	equal("Get", all[3], got, err)
	_, err = labels.Get(t.Context(), "none")
	wantErr(t, "Get of none", err, repository.ErrNotFound)
	many, err := labels.GetMany(t.Context(), []string{all[4].ID, "none", all[0].ID})
	equal("GetMany", []Label{all[4], all[0]}, many, err)
	n, err := labels.Count(t.Context(), rank.NotNull().And(city.Eq("c0")))
	equal("Count", int64(3), n, err)
	q := repository.Query[Label]{Where: price.Gte(1), Sort: []repository.Sort[Label]{price.Desc()}, Limit: 3}
	page, err := labels.Find(t.Context(), q)
	equal("a page", []Label{all[4], all[3], all[2]}, page.Items, err)
	q.After = page.Next
	page, err = labels.Find(t.Context(), q)
	equal("the page after it", repository.Page[Label]{Items: []Label{all[1]}}, page, err)
	prices, err := repository.Distinct(t.Context(), labels, price, city.Eq("c1"), 0)
	equal("Distinct", []int64{1, 3}, prices, err)
	changed := must[Widget](t)(widgets.Update(t.Context(), all[2].ID, func(_ context.Context, w *Widget) error {
		w.Price, w.Name = 20, "still hidden"
		return nil
	}))
	if err := widgets.Delete(t.Context(), all[0].ID); err != nil {
		t.Fatal(err)
	}
	var left []Label
	for l, err := range labels.Each(t.Context(), repository.Query[Label]{Limit: 2}) {
		if err != nil {
			t.Fatal(err)
		}
		left = append(left, l)
	}
	equal("after a change and a deletion", []Label{all[1], labelOf(changed), all[3], all[4]}, left, nil)
}

func viewWrites(t *testing.T, widgets repo, labels repository.Repository[Label]) {
	t.Helper()
	w := must[Widget](t)(widgets.Create(t.Context(), Widget{SKU: "s", Name: "kept", Tags: []string{"kept"}, Price: 1}))
	l := must[Label](t)(labels.Update(t.Context(), w.ID, func(_ context.Context, l *Label) error {
		l.Price = 2
		return nil
	}))
	l.Price = 3
	l = must[Label](t)(labels.Replace(t.Context(), l))
	put := l
	put.Price = 4
	if stored, err := labels.Put(t.Context(), put); err == nil { // a database may refuse what lacks columns
		l = stored
	}
	w.Meta, w.Price = l.Meta, l.Price
	got, err := widgets.Get(t.Context(), w.ID)
	if d := cmp.Diff(w, got, cmp.AllowUnexported(Widget{})); d != "" || err != nil {
		t.Errorf("after Update, Replace and Put of what shows a part: %v (-want +got):\n%s", err, d)
	}
}
