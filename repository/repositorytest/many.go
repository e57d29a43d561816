package repositorytest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sillar-go/sillar/repository"
)

func createMany(t *testing.T, r repository.Repository[Widget], f Features) {
	if out, err := r.CreateMany(t.Context(), nil); len(out) != 0 || err != nil {
		t.Errorf("of none: %v, %v", out, err)
	}
	precision := max(f.Precision, time.Microsecond)
	old := time.Date(2001, 2, 3, 4, 5, 6, 7_000_000, time.UTC)
	list := make([]Widget, 2500)
	for i := range list {
		list[i] = Widget{SKU: fmt.Sprint(i), Name: "x\ty\\n", Price: int64(i), Tags: []string{"a", "\"b\""},
			Parts: map[string]int{"p": i}, Blob: []byte{0, 1}, Sold: ptr(old)}
	}
	list[0].Meta = repository.Meta{ID: "imported", Version: 7, CreatedAt: old, UpdatedAt: old.Add(time.Hour)}
	begin := time.Now().Add(-precision)
	out, err := r.CreateMany(t.Context(), list)
	if err != nil || len(out) != len(list) {
		t.Fatalf("%d of %d, %v", len(out), len(list), err)
	}
	if out[0].Meta != list[0].Meta || out[1].ID == "" || out[1].Version != 1 || out[1].CreatedAt.Before(begin) {
		t.Errorf("the first ones are %+v and %+v", out[0].Meta, out[1].Meta)
	}
	for _, i := range []int{0, 1, 1234, 2499} {
		got, err := r.Get(t.Context(), out[i].ID)
		if d := cmp.Diff(out[i], got, cmp.AllowUnexported(Widget{})); d != "" || err != nil {
			t.Errorf("Get of number %d: %v (-want +got):\n%s", i, err, d)
		}
	}
	if n, err := r.Count(t.Context(), repository.Filter[Widget]{}); n != 2500 || err != nil {
		t.Errorf("%d are stored, %v", n, err)
	}
	if _, err := r.Update(t.Context(), "imported", func(_ context.Context, w *Widget) error {
		w.Price = 1
		return nil
	}); err != nil {
		t.Errorf("Update of an imported one: %v", err)
	}
	_, err = r.CreateMany(t.Context(), []Widget{{SKU: "new"}, {SKU: "7"}, {SKU: "newer"}})
	if !errors.Is(err, repository.ErrUnique) {
		t.Errorf("with one that is there: %v, want ErrUnique", err)
	}
	if n, err := r.Count(t.Context(), SKU.Eq("newer")); n != 0 || err != nil {
		t.Errorf("after the one that failed %d are stored, %v", n, err)
	}
	if n, err := r.Count(t.Context(), SKU.Eq("new")); n != 0 && f.InTx != nil || err != nil {
		t.Errorf("before the one that failed %d are stored, %v", n, err)
	}
}

func put(t *testing.T, r repository.Repository[Widget], _ Features) {
	first, err := r.Put(t.Context(), Widget{Meta: repository.Meta{ID: "w", Version: 40}, SKU: "a", Price: 1,
		Tags: []string{"x"}})
	if err != nil || first.Version != 1 || first.CreatedAt.IsZero() || first.Price != 1 {
		t.Fatalf("Put of a new one: %+v, %v", first, err)
	}
	second, err := r.Put(t.Context(), Widget{Meta: repository.Meta{ID: "w"}, SKU: "b", Note: ptr("n")})
	if err != nil || second.Version != 2 || !second.CreatedAt.Equal(first.CreatedAt) || second.Price != 0 ||
		second.Tags != nil || second.SKU != "b" {
		t.Fatalf("Put over it: %+v, %v", second, err)
	}
	got, err := r.Get(t.Context(), "w")
	if d := cmp.Diff(second, got, cmp.AllowUnexported(Widget{})); d != "" || err != nil {
		t.Errorf("Get: %v (-want +got):\n%s", err, d)
	}
	if other, err := r.Put(t.Context(), Widget{SKU: "c"}); err != nil || other.ID == "" {
		t.Errorf("Put without an id: %+v, %v", other, err)
	}
	if _, err := r.Put(t.Context(), Widget{Meta: repository.Meta{ID: "v"}, SKU: "b"}); !errors.Is(err,
		repository.ErrUnique) {
		t.Errorf("Put of a taken SKU: %v, want ErrUnique", err)
	}
	if _, err := r.Replace(t.Context(), first); !errors.Is(err, repository.ErrConflict) {
		t.Errorf("Replace of the version before: %v, want ErrConflict", err)
	}
}

func putAtOnce(t *testing.T, r repository.Repository[Widget], _ Features) {
	const puts = 20
	var wg sync.WaitGroup
	for i := range puts {
		wg.Go(func() {
			if _, err := r.Put(t.Context(), Widget{Meta: repository.Meta{ID: "w"}, SKU: "a", Price: int64(i)}); err != nil {
				t.Errorf("Put: %v", err)
			}
		})
	}
	wg.Wait()
	if got, err := r.Get(t.Context(), "w"); err != nil || got.Version != puts {
		t.Errorf("after %d times: version %d, %v", puts, got.Version, err)
	}
}

func some(t *testing.T, r repository.Repository[Widget]) (list []Widget) {
	t.Helper()
	for i := range 6 {
		w, err := r.Create(t.Context(), Widget{SKU: fmt.Sprint(i), Price: int64(i), Rank: ptr(int64(i)), Tags: []string{"x"}})
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, w)
	}
	return list
}

func updateWhere(t *testing.T, r repository.Repository[Widget], f Features) {
	list := some(t, r)
	at := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	n, err := r.UpdateWhere(t.Context(), Price.Gte(4), Name.To("dear"), Rank.To(nil), Made.To(at), Active.To(true),
		Colors.To("red"))
	if n != 2 || err != nil {
		t.Fatalf("%d were updated, %v, want 2", n, err)
	}
	want := list[4]
	want.Name, want.Rank, want.Made, want.Active, want.Color, want.Version = "dear", nil, at, true, "red", 2
	got, err := r.Get(t.Context(), want.ID)
	if !got.UpdatedAt.After(want.UpdatedAt.Add(-max(f.Precision, time.Microsecond))) {
		t.Errorf("updated at %v, before %v", got.UpdatedAt, want.UpdatedAt)
	}
	want.UpdatedAt = got.UpdatedAt
	if d := cmp.Diff(want, got, cmp.AllowUnexported(Widget{})); d != "" || err != nil {
		t.Errorf("Get: %v (-want +got):\n%s", err, d)
	}
	if _, err := r.Replace(t.Context(), list[4]); !errors.Is(err, repository.ErrConflict) {
		t.Errorf("Replace of the version before: %v, want ErrConflict", err)
	}
	if got, err := r.Get(t.Context(), list[3].ID); err != nil || got.Version != 1 || got.Name != "" {
		t.Errorf("one that does not match: %+v, %v", got, err)
	}
	if n, err := r.UpdateWhere(t.Context(), Price.Gt(100), Name.To("x")); n != 0 || err != nil {
		t.Errorf("where none matches: %d, %v", n, err)
	}
	if _, err := r.UpdateWhere(t.Context(), Price.Lt(2), SKU.To("same")); !errors.Is(err, repository.ErrUnique) {
		t.Errorf("one SKU for two: %v, want ErrUnique", err)
	}
	for what, set := range map[string][]repository.Assignment[Widget]{"nothing": nil, "the id": {ID.To("x")}} {
		if _, err := r.UpdateWhere(t.Context(), repository.Filter[Widget]{}, set...); !errors.Is(err, repository.ErrQuery) {
			t.Errorf("UpdateWhere that sets %s: %v, want ErrQuery", what, err)
		}
	}
}

func deleteWhere(t *testing.T, r repository.Repository[Widget], _ Features) {
	list := some(t, r)
	if n, err := r.DeleteWhere(t.Context(), Price.Lt(2)); n != 2 || err != nil {
		t.Errorf("%d were deleted, %v, want 2", n, err)
	}
	if _, err := r.Get(t.Context(), list[0].ID); !errors.Is(err, repository.ErrNotFound) {
		t.Errorf("Get of a deleted one: %v", err)
	}
	if _, err := r.Create(t.Context(), Widget{SKU: "0"}); err != nil {
		t.Errorf("the SKU of a deleted one is taken: %v", err)
	}
	if n, err := r.DeleteWhere(t.Context(), repository.Filter[Widget]{}); n != 5 || err != nil {
		t.Errorf("%d were deleted, %v, want the other 5", n, err)
	}
}

func deleteInVersion(t *testing.T, r repository.Repository[Widget], _ Features) {
	w := some(t, r)[0]
	var conflict *repository.ConflictError
	err := r.Delete(t.Context(), w.ID, repository.IfVersion[Widget](9))
	if !errors.As(err, &conflict) || conflict.Expected != 9 || conflict.Actual != 1 || conflict.ID != w.ID {
		t.Errorf("Delete of another version: %v", err)
	}
	if err := r.Delete(t.Context(), w.ID, repository.IfVersion[Widget](1)); err != nil {
		t.Errorf("Delete of the version: %v", err)
	}
}

func one(t *testing.T, r repository.Repository[Widget], _ Features) {
	list := some(t, r)
	if w, err := repository.One(t.Context(), r, SKU.Eq("3")); err != nil || w.ID != list[3].ID {
		t.Errorf("One: %+v, %v", w, err)
	}
	if _, err := repository.One(t.Context(), r, SKU.Eq("none")); !errors.Is(err, repository.ErrNotFound) {
		t.Errorf("One of none: %v, want ErrNotFound", err)
	}
	if _, err := repository.One(t.Context(), r, Price.Gt(3)); !errors.Is(err, repository.ErrQuery) {
		t.Errorf("One of two: %v, want ErrQuery", err)
	}
	createIfAbsent(t, r)
	for filter, want := range map[int64]bool{3: true, 20: false} {
		if ok, err := repository.Exists(t.Context(), r, Price.Eq(filter)); ok != want || err != nil {
			t.Errorf("Exists %d: %v, %v", filter, ok, err)
		}
	}
}

// createIfAbsent has several callers create the same: one does, and all get that.
func createIfAbsent(t *testing.T, r repository.Repository[Widget]) {
	t.Helper()
	var wg sync.WaitGroup
	var created atomic.Int64
	ids := make([]string, 8)
	for i := range ids {
		wg.Go(func() {
			w := Widget{SKU: "absent", Price: 30 + int64(i)}
			w, mine, err := repository.CreateIfAbsent(t.Context(), r, w, SKU.Eq("absent"))
			if err != nil {
				t.Errorf("CreateIfAbsent: %v", err)
			}
			if mine {
				created.Add(1)
			}
			ids[i] = w.ID
		})
	}
	wg.Wait()
	if n := created.Load(); n != 1 || ids[0] == "" || len(slices.Compact(ids)) != 1 {
		t.Errorf("%d of 8 created, and got the ids %v, want one of each", n, ids)
	}
}
