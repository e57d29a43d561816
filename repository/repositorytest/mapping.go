package repositorytest

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"math/big"
	"reflect"
	"testing"
	"time"

	"github.com/sillar-go/sillar/repository"
)

// The fields of Mapped that are searched.
var (
	mappedOrder  = repository.Text(func(m *Mapped) *string { return &m.Order })
	mappedUser   = repository.Text(func(m *Mapped) *string { return &m.User })
	mappedGroup  = repository.Ord(func(m *Mapped) *int64 { return &m.Group })
	mappedLimit  = repository.Null(func(m *Mapped) **int64 { return &m.Limit })
	mappedFrom   = repository.Time(func(m *Mapped) *time.Time { return &m.From })
	mappedSelect = repository.Eq(func(m *Mapped) *bool { return &m.Select })
	mappedSecret = repository.Text(func(m *Mapped) *Secret { return &m.Secret })
	mappedUUID   = repository.Eq(func(m *Mapped) *UUID { return &m.UUID })
	mappedParent = repository.Null(func(m *Mapped) **UUID { return &m.Parent })
	mappedCents  = repository.Eq(func(m *Mapped) *Cents { return &m.Cents })
	mappedNick   = repository.Eq(func(m *Mapped) *sql.NullString { return &m.Nick })
)

// MappedFactory makes an empty store of Mapped.
type MappedFactory func(t testing.TB) repository.Repository[Mapped]

// RunMapping checks how an adapter stores the fields of Mapped: what is read is what was written, and can be searched.
func RunMapping(t *testing.T, factory MappedFactory, f Features) {
	t.Helper()
	if f.Precision == 0 {
		f.Precision = time.Microsecond
	}
	for name, run := range map[string]func(*testing.T, repository.Repository[Mapped], Features){
		"RoundTrip": mappedRoundTrip, "ReservedNames": reservedNames, "Valuers": valuers, "Unstorable": unstorable,
		"PagesByValuer": pagesByValuer, "Generated": generated,
	} {
		t.Run(name, func(t *testing.T) { run(t, factory(t), f) })
	}
}

func mappedFull(f Features) Mapped {
	at := time.Date(2026, 3, 1, 12, 30, 15, 987654321, time.UTC).Truncate(f.Precision)
	limit, parent := int64(7), UUID{9, 8, 7, 6}
	m := Mapped{
		Order: "o-1", User: "alice", Group: 3, Limit: &limit, From: at, Select: true, Table: []string{"a", "\ufffd<&>"},
		Secret: "hush", UUID: UUID{1, 2, 3, 4}, Parent: &parent, Cents: NewCents(-1250),
		Nick: sql.NullString{String: "al", Valid: true}, Seen: sql.NullTime{Time: at, Valid: true},
		Points: sql.NullInt64{Int64: 9007199254740993, Valid: true},
		Sealed: NewSealed("letter"), Seals: []Sealed{NewSealed("x"), NewSealed("")},
		Raw: json.RawMessage(`{"a": 1.0}`), Digits: "1.10",
		Details: map[string]any{"account": json.Number("9007199254740993"),
			"deep": []any{json.Number("0.10"), nil, true}},
		Pair: NewPair("l", "r"),
	}
	m.Big.SetString("123456789012345678901234567890", 10)
	return m
}

// sameMapped compares two entities as far as callers set them. It looks at big.Int by its value.
func sameMapped(a, b Mapped) bool {
	if a.Big.Cmp(&b.Big) != 0 {
		return false
	}
	a.Meta, b.Meta, a.Big, b.Big = repository.Meta{}, repository.Meta{}, big.Int{}, big.Int{}
	return reflect.DeepEqual(a, b)
}

// mappedRoundTrip writes an entity with all fields and one with none, by every write, and reads both by every read.
func mappedRoundTrip(t *testing.T, r repository.Repository[Mapped], f Features) {
	ctx := t.Context()
	for name, want := range map[string]Mapped{"full": mappedFull(f), "zero": {}} {
		created, err := r.Create(ctx, want)
		if err != nil {
			t.Fatalf("%s: Create: %v", name, err)
		}
		reads := func(what string) {
			t.Helper()
			got, err := r.Get(ctx, created.ID)
			if err != nil || !sameMapped(got, want) {
				t.Errorf("%s, %s: Get: %v\ngot  %+v\nwant %+v", name, what, err, got, want)
			}
			many, err := r.GetMany(ctx, []string{created.ID})
			if err != nil || len(many) != 1 || !sameMapped(many[0], want) {
				t.Errorf("%s, %s: GetMany: %+v, %v", name, what, many, err)
			}
			byID := repository.Text(func(m *Mapped) *string { return &m.ID })
			page, err := r.Find(ctx, repository.Query[Mapped]{Where: byID.Eq(created.ID)})
			if err != nil || len(page.Items) != 1 || !sameMapped(page.Items[0], want) {
				t.Errorf("%s, %s: Find: %+v, %v", name, what, page.Items, err)
			}
		}
		if !sameMapped(created, want) {
			t.Errorf("%s: Create returned %+v, want %+v", name, created, want)
		}
		reads("created")
		if _, err := r.Update(ctx, created.ID, func(_ context.Context,
			m *Mapped) error {
			m.Group++
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		want.Group++
		reads("updated")
		now, err := r.Get(ctx, created.ID)
		if err != nil {
			t.Fatal(err)
		}
		now.User, want.User = "bob", "bob"
		if _, err := r.Replace(ctx, now); err != nil {
			t.Fatal(err)
		}
		reads("replaced")
	}
}

// reservedNames searches by columns whose names are words of SQL: a name that is not quoted is an error, or another
// thing altogether, as user is on PostgreSQL.
func reservedNames(t *testing.T, r repository.Repository[Mapped], f Features) {
	m := mappedFull(f)
	if _, err := r.Create(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	for name, filter := range map[string]repository.Filter[Mapped]{
		"order": mappedOrder.Eq("o-1"), "order, prefix": mappedOrder.HasPrefix("o-"), "user": mappedUser.Eq("alice"),
		"user in": mappedUser.In("x", "alice"),
		"group":   mappedGroup.Gte(3), "limit": mappedLimit.Eq(7), "limit not null": mappedLimit.NotNull(),
		"from": mappedFrom.Eq(m.From), "select": mappedSelect.Eq(true),
	} {
		if n, err := r.Count(t.Context(), filter); n != 1 || err != nil {
			t.Errorf("%s: got %d, %v, want 1", name, n, err)
		}
		if n, err := r.Count(t.Context(), repository.Not(filter)); n != 0 || err != nil {
			t.Errorf("not %s: got %d, %v, want 0", name, n, err)
		}
	}
	for name, sort := range map[string]repository.Sort[Mapped]{"order": mappedOrder.Desc(), "user": mappedUser.Asc(),
		"limit": mappedLimit.Desc(), "from": mappedFrom.Asc()} {
		if page, err := r.Find(t.Context(), repository.Query[Mapped]{Sort: []repository.Sort[Mapped]{sort}}); err != nil ||
			len(page.Items) != 1 {
			t.Errorf("sorted by %s: %d, %v", name, len(page.Items), err)
		}
	}
}

// valuers searches by what Value returns.
func valuers(t *testing.T, r repository.Repository[Mapped], f Features) {
	m := mappedFull(f)
	if _, err := r.Create(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Create(t.Context(), Mapped{}); err != nil {
		t.Fatal(err)
	}
	for name, filter := range map[string]repository.Filter[Mapped]{
		"text": mappedSecret.Eq("hush"), "an array": mappedUUID.Eq(m.UUID), "an array in": mappedUUID.In(UUID{}, UUID{7},
			m.UUID).And(mappedUser.Eq("alice")),
		"a pointer": mappedParent.Eq(*m.Parent), "not null": mappedParent.NotNull(),
		"a number": mappedCents.Eq(NewCents(-1250)), "a nullable": mappedNick.Eq(m.Nick),
	} {
		if n, err := r.Count(t.Context(), filter); n != 1 || err != nil {
			t.Errorf("%s: got %d, %v, want 1", name, n, err)
		}
	}
}

// unstorable writes what cannot be stored faithfully: an error that matches ErrValue, and nothing is written.
func unstorable(t *testing.T, r repository.Repository[Mapped], _ Features) {
	for name, m := range map[string]Mapped{
		"invalid UTF-8 inside JSON": {Table: []string{"\xff"}},
		"invalid UTF-8 in a key":    {Details: map[string]any{"\xff": 1}}, "a Valuer that fails": {Secret: "unstorable"},
		"a time too late":           {From: time.Date(294247, 1, 11, 0, 0, 0, 0, time.UTC)},
		"a time too early":          {Seen: sql.NullTime{Time: time.Date(-4713, 1, 1, 0, 0, 0, 0, time.UTC), Valid: true}},
		"a float that JSON has not": {Details: map[string]any{"f": func() {}}},
	} {
		if _, err := r.Create(t.Context(), m); !errors.Is(err, repository.ErrValue) {
			t.Errorf("%s: got %v, want ErrValue", name, err)
		}
	}
	late := time.Unix(1<<60, 0)
	if _, err := r.CreateMany(t.Context(), []Mapped{{}, {From: late}}); !errors.Is(err, repository.ErrValue) {
		t.Errorf("CreateMany with a time too late: got %v, want ErrValue", err)
	}
	if _, err := r.UpdateWhere(t.Context(), mappedOrder.Eq(""), mappedFrom.To(late)); !errors.Is(err,
		repository.ErrValue) {
		t.Errorf("UpdateWhere to a time too late: got %v, want ErrValue", err)
	}
	if n, err := r.Count(t.Context(), repository.Filter[Mapped]{}); n != 0 || err != nil {
		t.Errorf("%d entities were stored, %v", n, err)
	}
	if _, err := r.Create(t.Context(), Mapped{From: time.Date(294246, 12, 31, 0, 0, 0, 0, time.UTC)}); err != nil {
		t.Errorf("the latest time: %v", err)
	}
	between := mappedFrom.Before(late).And(mappedFrom.After(time.Unix(-1<<60, 0)))
	if n, err := r.Count(t.Context(), between); n != 1 || err != nil {
		t.Errorf("between times that no database holds: got %d, %v, want 1", n, err)
	}
}

// pagesByValuer walks pages that are sorted by a column of sql.Scanner and by one with NULLs.
func pagesByValuer(t *testing.T, r repository.Repository[Mapped], _ Features) {
	const n = 17
	for i := range n {
		m := Mapped{Cents: NewCents(int64(i*7%n - 5)), Order: "o"}
		if i%3 > 0 {
			m.Parent = &UUID{byte(i / 4)}
		}
		if _, err := r.Create(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	cents, err := repository.Named[Mapped]("cents")
	if err != nil {
		t.Fatal(err)
	}
	for name, sort := range map[string][]repository.Sort[Mapped]{
		"cents": {cents.Asc()}, "parent, cents": {mappedParent.Asc(), cents.Desc()}, "parent down": {mappedParent.Desc()},
	} {
		seen := map[string]bool{}
		q := repository.Query[Mapped]{Sort: sort, Limit: 4}
		for e, err := range r.Each(t.Context(), q) {
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if seen[e.ID] {
				t.Fatalf("%s: %s comes twice", name, e.ID)
			}
			seen[e.ID] = true
		}
		if len(seen) != n {
			t.Errorf("%s: got %d entities, want %d", name, len(seen), n)
		}
	}
}
