package repository_test

import (
	"errors"
	"math/big"
	"net/netip"
	"testing"
	"time"

	"github.com/sillar-go/sillar/repository"
)

type (
	inner struct {
		City string
		Zip  int `json:"zip"`
	}
	around struct {
		inner
		Name string
	}
	odd struct {
		Omitted string  `json:"omitted,omitempty"`
		Pointer *string `json:"pointer,omitempty"`
		Text    int     `json:"text,string"`
		Dotted  string  `json:"a.b"`
		Dollar  string  `json:"$set"`
		Single  float32
		At      time.Time
		Big     big.Int
		Left    string `json:"-"`
		Tags    []string
		Addrs   []netip.Addr
		Times   []time.Time
		Large   []uint64
		Zero    inner `json:"zero,omitzero"`
		Plain   inner
	}
	oddities struct {
		repository.Meta
		Odd    odd
		Around around
		Ptr    *inner
		Map    map[string]inner
	}
)

var unsearchable = map[string]repository.Filter[oddities]{
	"a pointer":         repository.Null(func(o *oddities) **string { return &o.Odd.Pointer }).Eq("x"),
	"two deep":          repository.Ord(func(o *oddities) *int { return &o.Odd.Plain.Zip }).Eq(1),
	"embedded":          repository.Ord(func(o *oddities) *int { return &o.Around.Zip }).Eq(1),
	"a list":            repository.List(func(o *oddities) *[]string { return &o.Odd.Tags }).Contains("x"),
	"a list of methods": repository.List(func(o *oddities) *[]netip.Addr { return &o.Odd.Addrs }).Contains(netip.Addr{}),
}

// What cannot be searched with one answer on every database is refused, by a field of the entity's.
func TestNestedFieldsThatCannotBeSearchedAreRefused(t *testing.T) {
	text := func(get func(*oddities) *string) repository.Filter[oddities] { return repository.Text(get).Eq("x") }
	for name, f := range map[string]repository.Filter[oddities]{
		"omitempty":       text(func(o *oddities) *string { return &o.Odd.Omitted }),
		"a dot":           text(func(o *oddities) *string { return &o.Odd.Dotted }),
		"a dollar":        text(func(o *oddities) *string { return &o.Odd.Dollar }),
		"left out":        text(func(o *oddities) *string { return &o.Odd.Left }),
		"number as text":  repository.Ord(func(o *oddities) *int { return &o.Odd.Text }).Eq(1),
		"single":          repository.Ord(func(o *oddities) *float32 { return &o.Odd.Single }).Eq(1),
		"a time":          repository.Time(func(o *oddities) *time.Time { return &o.Odd.At }).Eq(time.Now()),
		"a struct":        repository.Eq(func(o *oddities) *inner { return &o.Odd.Plain }).Eq(inner{}),
		"inside omitzero": repository.Ord(func(o *oddities) *int { return &o.Odd.Zero.Zip }).Eq(1),
		"a list of times": repository.List(func(o *oddities) *[]time.Time { return &o.Odd.Times }).Contains(time.Now()),
		"a large list":    repository.List(func(o *oddities) *[]uint64 { return &o.Odd.Large }).Contains(1),
	} {
		if _, err := f.Node(); !errors.Is(err, repository.ErrQuery) {
			t.Errorf("%s: got %v, want ErrQuery", name, err)
		}
	}
	for name, f := range unsearchable {
		if _, err := f.Node(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, want := range map[string]bool{"odd.Plain.City": true, "around.zip": true, "odd.pointer": true, "odd.Tags": false,
		"odd": false, "odd.Omitted": false, "ptr.zip": false, "odd.Plain": false, "odd.plain.city": false} {
		_, err := repository.Named[oddities](name)
		if (err == nil) != want || err != nil && !errors.Is(err, repository.ErrQuery) {
			t.Errorf("Named %s: got %v, want success: %v", name, err, want)
		}
	}
}
