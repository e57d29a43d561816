package sagatest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sillar-go/sillar/saga"
)

func ids(list []saga.Record) (out []string) {
	for _, r := range list {
		out = append(out, r.ID)
	}
	return out
}

func list(t *testing.T, s saga.Store, _ Features) {
	for i, status := range []saga.Status{saga.Running, saga.Stuck, saga.Completed, saga.Stuck} {
		r := record(fmt.Sprint("s", i))
		r.Status = status
		insert(t, s, r)
	}
	for _, c := range []struct {
		f    saga.Filter
		want []string
	}{
		{saga.Filter{}, []string{"s0", "s1", "s2", "s3"}},
		{saga.Filter{Statuses: []saga.Status{saga.Stuck}}, []string{"s1", "s3"}},
		{saga.Filter{Statuses: []saga.Status{saga.Stuck, saga.Running, saga.Stuck}, Limit: 2}, []string{"s0", "s1"}},
		{saga.Filter{Limit: -1}, []string{"s0", "s1", "s2", "s3"}},
		{saga.Filter{Name: "other"}, nil},
		{saga.Filter{Name: kind.Name, Statuses: []saga.Status{saga.Completed}}, []string{"s2"}},
		{saga.Filter{IDs: []string{"s3", "none", "s0"}}, []string{"s0", "s3"}},
		{saga.Filter{IDs: []string{"s3", "s0"}, Statuses: []saga.Status{saga.Stuck}}, []string{"s3"}},
		{saga.Filter{IDs: []string{"s3", "s0"}, Name: "other"}, nil},
	} {
		got, err := s.List(t.Context(), c.f)
		if d := cmp.Diff(c.want, ids(got)); d != "" || err != nil {
			t.Errorf("List(%+v): %v (-want +got):\n%s", c.f, err, d)
		}
		if c.f.Limit == 0 {
			if n, err := s.Count(t.Context(), c.f); n != len(c.want) || err != nil {
				t.Errorf("Count(%+v): %d, %v, want %d", c.f, n, err, len(c.want))
			}
		}
	}
	if n, err := s.Count(t.Context(), saga.Filter{Limit: 3}); n != 3 || err != nil {
		t.Errorf("Count up to 3: %d, %v", n, err)
	}
}

// listByTimeAndAttribute starts sagas through an orchestrator, as attributes are given only so.
func listByTimeAndAttribute(t *testing.T, s saga.Store, _ Features) {
	def := saga.Define(kind.Name, kind.Version,
		saga.Step("a", func(context.Context, *saga.Call, *struct{}) error { return nil }))
	o := saga.Must(saga.New(s, saga.Config{}, def)) // it does not run
	want := []string{}
	for i := range 7 {
		id := fmt.Sprintf("s%d", 9-i) // not in the order of the ids
		with := map[string]string{"customer": fmt.Sprint(i % 2), "0": "customer"}
		if _, err := def.Start(t.Context(), o, id, struct{}{}, saga.WithAttributes(with)); err != nil {
			t.Fatal(err)
		}
		if _, err := def.Start(t.Context(), o, id, struct{}{}, saga.WithAttributes(with)); err != nil { // again
			t.Fatal(err)
		}
		want = append(want, id)
		time.Sleep(2 * time.Millisecond) // the clock goes on
	}
	pages := func(f saga.Filter) (out []string) {
		t.Helper()
		for {
			page, err := o.List(t.Context(), f)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				return out
			}
			out = append(out, ids(page)...)
			f = f.Next(page)
		}
	}
	checkPages(t, o, want, pages)
}

// checkPages compares the pages of lists with what a full list holds.
func checkPages(t *testing.T, o *saga.Orchestrator, want []string, pages func(f saga.Filter) (out []string)) {
	t.Helper()
	all, err := o.List(t.Context(), saga.Filter{})
	if err != nil || len(all) != 7 {
		t.Fatalf("%d sagas, %v", len(all), err)
	}
	if got := all[1].Attributes()["customer"]; got != "1" {
		t.Errorf("the attribute of the second saga is %q, want 1", got)
	}
	for _, c := range []struct {
		f    saga.Filter
		want []string
	}{
		{saga.Filter{Limit: 3}, want},
		{saga.Filter{Limit: 1, Name: kind.Name}, want},
		{saga.Filter{Limit: 2, Since: all[2].CreatedAt}, want[2:]},
		{saga.Filter{Limit: 2, Until: all[2].CreatedAt}, want[:2]},
		{saga.Filter{Limit: 2, Since: all[1].CreatedAt, Until: all[4].CreatedAt, Statuses: []saga.Status{saga.Running}},
			want[1:4]},
		{saga.Filter{Attribute: "customer", Value: "1", Limit: 2}, []string{want[1], want[3], want[5]}},
		{saga.Filter{Attribute: "customer", Value: "1", Since: all[2].CreatedAt, Until: all[5].CreatedAt}, []string{want[3]}},
		{saga.Filter{Attribute: "customer", Value: "0", Statuses: []saga.Status{saga.Stuck}}, nil},
		{saga.Filter{Attribute: "customer", Value: "0", IDs: want[:2]}, want[:1]},
		{saga.Filter{Attribute: "customer", Value: "2"}, nil},
		{saga.Filter{Attribute: "0=customer"}, nil},
	} {
		if d := cmp.Diff(c.want, pages(c.f)); d != "" {
			t.Errorf("pages of %+v (-want +got):\n%s", c.f, d)
		}
	}
	if n, err := o.Count(t.Context(), saga.Filter{Attribute: "customer", Value: "0"}); n != 4 || err != nil {
		t.Errorf("Count: %d, %v, want 4", n, err)
	}
}

func deleteEnded(t *testing.T, s saga.Store, _ Features) {
	for _, status := range []saga.Status{saga.Running, saga.Compensating, saga.Completed, saga.Compensated, saga.Stuck} {
		r := record(string(status))
		r.Status = status
		r.Headers["sillar-attribute-a"] = "b"
		insert(t, s, r)
		err := s.Delete(t.Context(), r.ID)
		if !status.Ended() {
			if !errors.Is(err, saga.ErrUnfinished) || get(t, s, r.ID).Status != status {
				t.Errorf("Delete of a saga that is %s: %v, want ErrUnfinished", status, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("Delete of a saga that is %s: %v", status, err)
		}
		if _, err := s.Get(t.Context(), r.ID); !errors.Is(err, saga.ErrNotFound) {
			t.Errorf("Get after Delete: %v", err)
		}
		if err := s.Delete(t.Context(), r.ID); !errors.Is(err, saga.ErrNotFound) {
			t.Errorf("Delete again: %v, want ErrNotFound", err)
		}
		insert(t, s, r) // the id is free
	}
	if left, err := s.List(t.Context(), saga.Filter{Attribute: "a", Value: "b"}); len(left) != 5 || err != nil {
		t.Errorf("%d sagas by attribute, %v, want those that were not deleted or are new", len(left), err)
	}
}

func prune(t *testing.T, s saga.Store, _ Features) {
	lease(t, s, "n", time.Minute)
	for _, status := range []saga.Status{saga.Completed, saga.Compensated, saga.Stuck, saga.Completed, saga.Running} {
		n, err := s.Count(t.Context(), saga.Filter{})
		if err != nil {
			t.Fatal(err)
		}
		insert(t, s, record(fmt.Sprint("s", n)))
		r := first(t, s, "n")
		r.Status = status
		if status.Ended() {
			r.Owner = ""
		}
		if err := s.Save(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := s.Prune(t.Context(), time.Now().Add(-time.Hour), 10); n != 0 || err != nil {
		t.Errorf("Prune of what ended an hour ago: %d, %v", n, err)
	}
	for _, want := range []int{2, 1, 0} {
		if n, err := s.Prune(t.Context(), time.Now().Add(time.Hour), 2); n != want || err != nil {
			t.Errorf("Prune: %d, %v, want %d", n, err, want)
		}
	}
	left, err := s.List(t.Context(), saga.Filter{})
	if d := cmp.Diff([]string{"s2", "s4"}, ids(left)); d != "" || err != nil {
		t.Errorf("left: %v (-want +got):\n%s", err, d)
	}
}
