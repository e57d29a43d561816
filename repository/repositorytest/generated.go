package repositorytest

import (
	"database/sql"
	"encoding/json"
	"errors"
	"math/big"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sillar-go/sillar/repository"
)

// generated writes and reads entities with random values in every field: what comes back is what was written, or
// nothing was written and the error is ErrValue.
func generated(t *testing.T, r repository.Repository[Mapped], f Features) {
	ctx := t.Context()
	valid := rapid.StringN(0, 8, -1)
	odd := rapid.OneOf(valid, rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 6), func(b []byte) string { return string(b) }))
	// Text that is no UTF-8 is refused in most places: most entities have none.
	random := rapid.OneOf(randomMapped(f, valid), randomMapped(f, valid), randomMapped(f, odd))
	stored := 0
	rapid.Check(t, func(rt *rapid.T) {
		want := random.Draw(rt, "entity")
		created, err := r.Create(ctx, want)
		if errors.Is(err, repository.ErrValue) {
			return
		}
		if err != nil {
			rt.Fatalf("Create: %v", err)
		}
		got, err := r.Get(ctx, created.ID)
		if err != nil || !sameMapped(got, want) {
			rt.Fatalf("Get: %v\ngot  %+v\nwant %+v", err, got, want)
		}
		stored++
		next := random.Draw(rt, "replacement")
		next.Meta = got.Meta
		if _, err = r.Replace(ctx, next); errors.Is(err, repository.ErrValue) {
			next = want
		} else if err != nil {
			rt.Fatalf("Replace: %v", err)
		}
		if got, err = r.Get(ctx, created.ID); err != nil || !sameMapped(got, next) {
			rt.Fatalf("Get after Replace: %v\ngot  %+v\nwant %+v", err, got, next)
		}
	})
	if stored < 10 {
		t.Errorf("only %d entities could be stored", stored)
	}
}

func randomMapped(f Features, text *rapid.Generator[string]) *rapid.Generator[Mapped] {
	number := rapid.OneOf(rapid.Int64(), rapid.Int64Range(-2, 2))
	instant := rapid.Map(rapid.Int64Range(-1<<50, 1<<50), func(us int64) time.Time {
		return time.UnixMicro(us).UTC().Truncate(f.Precision)
	})
	id := rapid.Map(rapid.SliceOfN(rapid.Byte(), 4, 4), func(b []byte) UUID { return UUID(b) })
	plain := rapid.StringMatching("[a-z]{0,4}") // what Pair joins with a /, and what JSON can hold
	scalar := rapid.Custom(func(t *rapid.T) any {
		switch rapid.IntRange(0, 4).Draw(t, "kind") {
		case 0:
			return text.Draw(t, "text")
		case 1:
			return rapid.Bool().Draw(t, "bool")
		case 2:
			return json.Number(rapid.SampledFrom([]string{"0", "-1", "9007199254740993", "1.50"}).Draw(t, "number"))
		case 3:
			return []any{json.Number("1"), nil, map[string]any{"$a.b": text.Draw(t, "deep")}}
		}
		return nil
	})
	return rapid.Custom(func(t *rapid.T) Mapped {
		m := Mapped{
			Order: text.Draw(t, "order"), User: text.Draw(t, "user"), Group: number.Draw(t, "group"),
			Limit: rapid.Ptr(number, true).Draw(t, "limit"), From: instant.Draw(t, "from"),
			Select: rapid.Bool().Draw(t, "select"),
			Secret: Secret(text.Draw(t, "secret")), UUID: id.Draw(t, "uuid"), Parent: rapid.Ptr(id, true).Draw(t, "parent"),
			Cents: NewCents(number.Draw(t, "cents")), Sealed: NewSealed(text.Draw(t, "sealed")),
			Raw:  json.RawMessage(rapid.SampledFrom([]string{"", "{}", `{"b":1,"a":[1.0]}`, `"x"`, "[]", "3"}).Draw(t, "raw")),
			Pair: NewPair(plain.Draw(t, "left"), plain.Draw(t, "right")),
		}
		if len(m.Raw) == 0 {
			m.Raw = nil
		}
		m.Big.SetInt64(number.Draw(t, "big"))
		m.Big.Mul(&m.Big, big.NewInt(number.Draw(t, "by")))
		if rapid.Bool().Draw(t, "full") {
			m.Table = rapid.SliceOfN(text, 0, 3).Draw(t, "table")
			m.Seals = []Sealed{NewSealed(text.Draw(t, "seal"))}
			m.Nick = sql.NullString{String: text.Draw(t, "nick"), Valid: true}
			m.Seen = sql.NullTime{Time: instant.Draw(t, "seen"), Valid: true}
			m.Points = sql.NullInt64{Int64: number.Draw(t, "points"), Valid: true}
			m.Details = rapid.MapOfN(text, scalar, 0, 3).Draw(t, "details")
		}
		return m
	})
}
