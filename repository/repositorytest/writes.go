package repositorytest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sillar-go/sillar/repository"
)

type repo = repository.Repository[Widget]

var ignore = cmpopts.IgnoreFields(Widget{}, "private", "Skipped")

func ptr[T any](v T) *T { return &v }

// ownMemory checks that the hook of Create changes a copy, not what the caller holds.
func ownMemory(t *testing.T, r repo) {
	t.Helper()
	w := full()
	w.SKU = "own-memory"
	created, err := r.Create(t.Context(), w, func(_ context.Context, w *Widget) error {
		w.Parts["$x.y"], w.Tags[0], w.Blob[0], *w.Rank = 9, "changed", 9, 9
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if w.Parts["$x.y"] != 1 || w.Tags[0] != "a" || w.Blob[0] != 0 || *w.Rank != -7 {
		t.Errorf("the hook of Create changed what the caller holds: %+v", w)
	}
	if created.Parts["$x.y"] != 9 || created.Tags[0] != "changed" || created.Blob[0] != 9 || *created.Rank != 9 {
		t.Errorf("what the hook of Create changed was not stored: %+v", created)
	}
}

func full() Widget {
	return Widget{
		SKU: "w-1", Name: "Lamp ✓ 'quoted' \"x\" $where {$gt: 1}", Color: "red", Price: math.MaxInt64, Small: math.MaxUint32,
		Weight: 1.0 / 3, Active: true, Made: time.Date(2026, 3, 1, 12, 30, 15, 123_000_000, time.FixedZone("x", -5*3600)),
		Sold: ptr(time.Date(1969, 7, 20, 20, 17, 0, 0, time.UTC)), Note: ptr("n"), Rank: ptr(int64(-7)),
		Blob: []byte{0, 1, 255}, Tags: []string{"a", "b"}, Parts: map[string]int{"$x.y": 1}, Renamed: "r",
	}
}

func must[T any](t *testing.T) func(T, error) T {
	t.Helper()
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%s: error %v, want %v", what, err, want)
	}
}

func same(t *testing.T, what string, got, want Widget) {
	t.Helper()
	if d := cmp.Diff(want, got, ignore); d != "" {
		t.Fatalf("%s (-want +got):\n%s", what, d)
	}
}

func createAndGet(t *testing.T, r repo, f Features) {
	before := time.Now().Add(-time.Second)
	in := full()
	w := must[Widget](t)(r.Create(t.Context(), in))
	if w.ID == "" || w.Version != 1 || w.CreatedAt.Before(before) || !w.UpdatedAt.Equal(w.CreatedAt) {
		t.Fatalf("created with meta %+v", w.Meta)
	}
	in.Meta, in.Made = w.Meta, in.Made.UTC()
	same(t, "returned by Create", w, in)
	same(t, "returned by Get", must[Widget](t)(r.Get(t.Context(), w.ID)), w)

	own := must[Widget](t)(r.Create(t.Context(), Widget{Meta: repository.Meta{ID: "own-id", Version: 9}, SKU: "w-2"}))
	if own.ID != "own-id" || own.Version != 1 {
		t.Fatalf("with an id of one's own: %+v", own.Meta)
	}
	ran := false
	w3 := must[Widget](t)(r.Create(t.Context(), Widget{SKU: "w-3"}, func(_ context.Context, w *Widget) error {
		ran = w.ID != ""
		return nil
	}))
	if !ran || w3.Version != 1 {
		t.Fatal("the function of Create did not run, or saw no id")
	}
	boom := errors.New("boom")
	_, err := r.Create(t.Context(), Widget{Meta: repository.Meta{ID: "undone"}, SKU: "w-4"},
		func(context.Context, *Widget) error {
			return boom
		})
	wantErr(t, "a failing function of Create", err, boom)
	_, err = r.Get(t.Context(), "undone")
	wantErr(t, "what a failed Create left", err, repository.ErrNotFound)
}

func zeroValues(t *testing.T, r repo, _ Features) {
	w := must[Widget](t)(r.Create(t.Context(), full()))
	w = must[Widget](t)(r.Update(t.Context(), w.ID, func(_ context.Context, w *Widget) error {
		*w = Widget{Meta: w.Meta}
		return nil
	}))
	got := must[Widget](t)(r.Get(t.Context(), w.ID))
	if got.Name != "" || got.Price != 0 || got.Active || got.Sold != nil || got.Note != nil || got.Rank != nil ||
		len(got.Blob) != 0 || got.Tags != nil || got.Parts != nil || got.Weight != 0 {
		t.Fatalf("zero values were not stored: %+v", got)
	}
	if n := must[int64](t)(r.Count(t.Context(), Name.Eq("").And(Active.Eq(false), Price.Eq(0), Note.IsNull()))); n != 1 {
		t.Fatalf("%d entities match the zero values, want 1", n)
	}
	w = must[Widget](t)(r.Update(t.Context(), w.ID, func(_ context.Context, w *Widget) error {
		w.Note, w.Rank = ptr(""), ptr(int64(0))
		return nil
	}))
	got = must[Widget](t)(r.Get(t.Context(), w.ID))
	if got.Note == nil || *got.Note != "" || got.Rank == nil || *got.Rank != 0 {
		t.Fatal("an empty value behind a pointer became NULL")
	}
}

func times(t *testing.T, r repo, f Features) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678_901_234, time.FixedZone("east", 9*3600))
	w := must[Widget](t)(r.Create(t.Context(), Widget{SKU: "t", Made: at, Sold: &at}))
	got := must[Widget](t)(r.Get(t.Context(), w.ID))
	want := at.UTC().Truncate(f.Precision)
	if got.Made != want || *got.Sold != want {
		t.Fatalf("read %v and %v, want %v", got.Made, *got.Sold, want)
	}
	same(t, "Create against Get", w, got)
	// One instant in two zones: order and equality go by the instant.
	west := want.In(time.FixedZone("west", -8*3600))
	if n := must[int64](t)(r.Count(t.Context(), Made.Eq(west).And(Made.Since(west),
		Made.Before(west.Add(f.Precision))))); n != 1 {
		t.Fatalf("%d entities at the same instant in another zone, want 1", n)
	}
}

func notFound(t *testing.T, r repo, _ Features) {
	_, err := r.Get(t.Context(), "none")
	wantErr(t, "Get", err, repository.ErrNotFound)
	_, err = r.Update(t.Context(), "none", func(context.Context, *Widget) error { t.Error("ran"); return nil })
	wantErr(t, "Update", err, repository.ErrNotFound)
	_, err = r.Replace(t.Context(), Widget{Meta: repository.Meta{ID: "none", Version: 1}})
	wantErr(t, "Replace", err, repository.ErrNotFound)
	wantErr(t, "Delete", r.Delete(t.Context(), "none"), repository.ErrNotFound)
	if n := must[int64](t)(r.Count(t.Context(), repository.Filter[Widget]{})); n != 0 {
		t.Fatalf("%d entities came out of nothing", n)
	}
}

func unique(t *testing.T, r repo, _ Features) {
	a := must[Widget](t)(r.Create(t.Context(), Widget{SKU: "one"}))
	b := must[Widget](t)(r.Create(t.Context(), Widget{SKU: "two"}))
	check := func(what string, err error, field string) {
		t.Helper()
		wantErr(t, what, err, repository.ErrUnique)
		var u *repository.UniqueError
		if !errors.As(err, &u) || len(u.Fields) != 1 || u.Fields[0] != field || u.Constraint == "" {
			t.Fatalf("%s: %#v does not name the field %s", what, u, field)
		}
	}
	_, err := r.Create(t.Context(), Widget{SKU: "one"})
	check("Create", err, "sku")
	_, err = r.Create(t.Context(), Widget{Meta: repository.Meta{ID: a.ID}, SKU: "three"})
	check("Create with a taken id", err, "id")
	_, err = r.Update(t.Context(), b.ID, func(_ context.Context, w *Widget) error { w.SKU = "one"; return nil })
	check("Update", err, "sku")
	same(t, "after the refused update", must[Widget](t)(r.Get(t.Context(), b.ID)), b)
}

func update(t *testing.T, r repo, _ Features) {
	w := must[Widget](t)(r.Create(t.Context(), full()))
	time.Sleep(2 * time.Millisecond) // so that UpdatedAt can differ at any precision
	u := must[Widget](t)(r.Update(t.Context(), w.ID, func(_ context.Context, x *Widget) error {
		same(t, "given to the function", *x, w)
		x.Name, x.ID, x.Version, x.CreatedAt = "new", "hijacked", 99, time.Time{}
		return nil
	}))
	if u.ID != w.ID || u.Version != 2 || !u.CreatedAt.Equal(w.CreatedAt) || !u.UpdatedAt.After(w.UpdatedAt) ||
		u.Name != "new" {
		t.Fatalf("updated to %+v %q", u.Meta, u.Name)
	}
	same(t, "stored", must[Widget](t)(r.Get(t.Context(), w.ID)), u)
	inside(t, r, u)
}

// inside uses the store in the functions of its writes, with the context that they are given.
func inside(t *testing.T, r repo, w Widget) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		look := func(ctx context.Context, x *Widget) error {
			got, err := r.Get(ctx, w.ID)
			if err != nil {
				return err
			}
			n, err := r.Count(ctx, SKU.Eq(w.SKU))
			if x.Name = fmt.Sprint(got.Name, n); err != nil {
				return err
			}
			_, err = r.Find(ctx, repository.Query[Widget]{})
			return err
		}
		if u, err := r.Update(ctx, w.ID, look); err != nil || u.Name != w.Name+"1" {
			t.Errorf("an Update that looks at the store: %q, %v", u.Name, err)
		}
		if c, err := r.Create(ctx, Widget{SKU: "inside"}, look); err != nil {
			t.Errorf("a Create that looks at the store: %v", err)
		} else if err := r.Delete(ctx, c.ID, look); err != nil {
			t.Errorf("a Delete that looks at the store: %v", err)
		}
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Error("a function of a write that looks at the store waits for itself")
	}
}

func updateFails(t *testing.T, r repo, _ Features) {
	w := must[Widget](t)(r.Create(t.Context(), full()))
	boom := errors.New("boom")
	_, err := r.Update(t.Context(), w.ID, func(_ context.Context, x *Widget) error { x.Name = "lost"; return boom })
	wantErr(t, "Update", err, boom)
	same(t, "after a failed update", must[Widget](t)(r.Get(t.Context(), w.ID)), w)
}

func replace(t *testing.T, r repo, _ Features) {
	w := must[Widget](t)(r.Create(t.Context(), full()))
	next := w
	next.Name = "second"
	next.CreatedAt = time.Time{}
	second := must[Widget](t)(r.Replace(t.Context(), next))
	if second.Version != 2 || !second.CreatedAt.Equal(w.CreatedAt) {
		t.Fatalf("replaced to %+v", second.Meta)
	}
	_, err := r.Replace(t.Context(), next)
	wantErr(t, "a stale Replace", err, repository.ErrConflict)
	var c *repository.ConflictError
	if !errors.As(err, &c) || c.Expected != 1 || c.Actual != 2 || c.ID != w.ID {
		t.Fatalf("conflict %#v, want expected 1, actual 2", c)
	}
	same(t, "after the stale write", must[Widget](t)(r.Get(t.Context(), w.ID)), second)
}

func remove(t *testing.T, r repo, _ Features) {
	w := must[Widget](t)(r.Create(t.Context(), full()))
	boom := errors.New("boom")
	wantErr(t, "a failing function of Delete", r.Delete(t.Context(), w.ID, func(context.Context, *Widget) error {
		return boom
	}), boom)
	saw := Widget{}
	if err := r.Delete(t.Context(), w.ID, func(_ context.Context, x *Widget) error { saw = *x; return nil }); err != nil {
		t.Fatal(err)
	}
	same(t, "seen by the function of Delete", saw, w)
	_, err := r.Get(t.Context(), w.ID)
	wantErr(t, "Get after Delete", err, repository.ErrNotFound)
	wantErr(t, "Delete again", r.Delete(t.Context(), w.ID), repository.ErrNotFound)
	_, err = r.Replace(t.Context(), w)
	wantErr(t, "Replace after Delete", err, repository.ErrNotFound)
	if n := must[int64](t)(r.Count(t.Context(), repository.Filter[Widget]{})); n != 0 {
		t.Fatalf("%d entities after the only one was deleted", n)
	}
	if page := must[repository.Page[Widget]](t)(r.Find(t.Context(), repository.Query[Widget]{})); len(page.Items) != 0 {
		t.Fatal("Find shows what was deleted")
	}
	must[Widget](t)(r.Create(t.Context(), full())) // its unique value is free again
}

func getMany(t *testing.T, r repo, _ Features) {
	a := must[Widget](t)(r.Create(t.Context(), Widget{SKU: "a"}))
	b := must[Widget](t)(r.Create(t.Context(), Widget{SKU: "b"}))
	got := must[[]Widget](t)(r.GetMany(t.Context(), []string{b.ID, "none", a.ID}))
	if len(got) != 2 || got[0].ID != b.ID || got[1].ID != a.ID {
		t.Fatalf("GetMany: %v", got)
	}
	c := must[Widget](t)(r.Create(t.Context(), full()))
	d := must[Widget](t)(r.Create(t.Context(), Widget{SKU: "d", Parts: map[string]int{"y": 2}}))
	for i, w := range must[[]Widget](t)(r.GetMany(t.Context(), []string{c.ID, d.ID, a.ID})) { // nothing of one in another
		same(t, "one of many", w, []Widget{c, d, a}[i])
	}
	if got := must[[]Widget](t)(r.GetMany(t.Context(), nil)); len(got) != 0 {
		t.Fatalf("GetMany of none: %v", got)
	}
}
