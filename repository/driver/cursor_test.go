package driver

import (
	"reflect"
	"testing"
	"time"
)

type dated struct {
	ID                   string
	Version              int64
	CreatedAt, UpdatedAt time.Time
}

// A cursor that clients hold outlives a new version of this package: the next page begins where it says.
func TestCursorsOfOlderVersionsAreUnderstood(t *testing.T) {
	m, err := MappingOf[dated]()
	if err != nil {
		t.Fatal(err)
	}
	where := Node{Op: OpAnd, Kids: []Node{{Op: OpIn, Column: 0, Values: []any{"a", "b\"c"}}, {Op: OpGt, Column: 1,
		Value: int64(7)}}}
	p, err := NewPlan(m, where, []Key{{Column: 2, Desc: true}}, "")
	if err != nil {
		t.Fatal(err)
	}
	e := dated{ID: "a", CreatedAt: time.UnixMicro(1234567)}
	const want = "vRziuKboTcxPAQcxMjM0NTY3AQFh"
	if got := p.encode(reflect.ValueOf(&e).Elem()); got != want {
		t.Errorf("the cursor is %q, was %q", got, want)
	}
}

// Times are cut as Truncate cuts them.
func TestTimesAreCutDown(t *testing.T) {
	m, err := MappingOf[dated]()
	if err != nil {
		t.Fatal(err)
	}
	for _, precision := range []time.Duration{time.Microsecond, time.Millisecond} {
		l := NewLifecycle[dated](m, precision)
		for _, at := range []time.Time{time.Now(), time.Unix(-1, 999_999_999), time.Date(-5, 1, 1, 0, 0, 0, 1999, time.UTC),
			{},
			time.Unix(12, 3000).In(time.FixedZone("x", 3600))} {
			e := dated{CreatedAt: at}
			l.Normalize(&e)
			if want := at.UTC().Truncate(precision); e.CreatedAt != want {
				t.Errorf("%v cut to %v is %v, want %v", at, precision, e.CreatedAt, want)
			}
		}
	}
}
