// Package repositorytest checks that an adapter keeps the promises of package repository. An adapter's test calls Run
// with a function that makes an empty store:
//
//	func TestConformance(t *testing.T) {
//		repositorytest.Run(t, func(t testing.TB) repository.Repository[repositorytest.Widget] {
//			return mine.Must(mine.New[repositorytest.Widget](...))
//		}, repositorytest.Features{})
//	}
package repositorytest

import (
	"context"
	"testing"
	"time"

	"github.com/sillar-go/sillar/repository"
)

// Widget is the entity that the checks store: a field of every kind.
type Widget struct {
	repository.Meta
	SKU     string // unique
	Name    string
	Color   Color
	Price   int64
	Small   uint32
	Weight  float64
	Active  bool
	Made    time.Time
	Sold    *time.Time
	Note    *string
	Rank    *int64
	Blob    []byte
	Tags    []string
	Parts   map[string]int
	Place   Place
	private int    //nolint:unused // adapters leave it alone
	Skipped string `repo:"-"`
	Renamed string `repo:"other_name"`
}

// Color is text of a type of its own.
type Color string

// Place is stored as JSON, and its fields can be searched.
type Place struct {
	City   string  `json:"city"`
	Zip    int64   `json:"zip"`
	Lat    float64 `json:"null"` // a word of SQL
	Open   bool
	Unit   *string `json:"unit,omitempty"`
	Labels []Color `json:"labels"`
	Deep   struct {
		Level int32 `json:"level"`
	} `json:"deep"`
}

// The fields of Widget.
var (
	ID     = repository.Text(func(w *Widget) *string { return &w.ID })
	SKU    = repository.Text(func(w *Widget) *string { return &w.SKU })
	Name   = repository.Text(func(w *Widget) *string { return &w.Name })
	Colors = repository.Eq(func(w *Widget) *Color { return &w.Color })
	Price  = repository.Ord(func(w *Widget) *int64 { return &w.Price })
	Small  = repository.Ord(func(w *Widget) *uint32 { return &w.Small })
	Weight = repository.Ord(func(w *Widget) *float64 { return &w.Weight })
	Active = repository.Eq(func(w *Widget) *bool { return &w.Active })
	Made   = repository.Time(func(w *Widget) *time.Time { return &w.Made })
	Sold   = repository.Null(func(w *Widget) **time.Time { return &w.Sold })
	Note   = repository.Null(func(w *Widget) **string { return &w.Note })
	Rank   = repository.Null(func(w *Widget) **int64 { return &w.Rank })
	Tags   = repository.List(func(w *Widget) *[]string { return &w.Tags })

	City   = repository.Text(func(w *Widget) *string { return &w.Place.City })
	Zip    = repository.Ord(func(w *Widget) *int64 { return &w.Place.Zip })
	Lat    = repository.Ord(func(w *Widget) *float64 { return &w.Place.Lat })
	Open   = repository.Eq(func(w *Widget) *bool { return &w.Place.Open })
	Unit   = repository.Null(func(w *Widget) **string { return &w.Place.Unit })
	Labels = repository.List(func(w *Widget) *[]Color { return &w.Place.Labels })
	Level  = repository.Ord(func(w *Widget) *int32 { return &w.Place.Deep.Level })
)

// Unique lists the sets of columns that the store must hold unique.
var Unique = [][]string{{"sku"}}

// Features says what an adapter does beyond, or short of, the port.
type Features struct {
	// Precision is what times are cut to. 0 means a microsecond.
	Precision time.Duration
	// InTx runs a function in a transaction of the store's, which ctx carries: large stores are filled faster by it. Nil:
	// there are none.
	InTx func(ctx context.Context, r repository.Repository[Widget], fn func(ctx context.Context) error) error
}

// Factory makes an empty store that holds Unique.
type Factory func(t testing.TB) repository.Repository[Widget]

type check struct {
	name string
	run  func(*testing.T, repository.Repository[Widget], Features)
}

// all are the checks, in the order in which they run.
func all() []check {
	return []check{
		{"CreateAndGet", createAndGet},
		{"ZeroValues", zeroValues},
		{"Times", times},
		{"NotFound", notFound},
		{"Unique", unique},
		{"Update", update},
		{"UpdateFails", updateFails},
		{"Replace", replace},
		{"Delete", remove},
		{"CreateMany", createMany},
		{"Put", put},
		{"PutAtOnce", putAtOnce},
		{"UpdateWhere", updateWhere},
		{"DeleteWhere", deleteWhere},
		{"DeleteInVersion", deleteInVersion},
		{"One", one},
		{"DeleteAgainstUpdate", deleteAgainstUpdate},
		{"GetMany", getMany},
		{"Isolation", isolation},
		{"ConcurrentUpdates", concurrentUpdates},
		{"ConcurrentReplace", concurrentReplace},
		{"Filters", filters},
		{"Lists", lists},
		{"Nested", nested},
		{"Distinct", distinct},
		{"Paging", paging},
		{"PagingUnderWrites", pagingUnderWrites},
		{"Cursors", cursors},
		{"StrangeKeys", strangeKeys},
		{"EndedContext", endedContext},
		{"HostileFields", hostileFields},
		{"StrangeValues", strangeValues},
		{"RandomQueries", randomQueries},
	}
}

// Run runs all checks, each on a store of its own.
func Run(t *testing.T, factory Factory, f Features) {
	t.Helper()
	if f.Precision == 0 {
		f.Precision = time.Microsecond
	}
	for _, c := range all() {
		t.Run(c.name, func(t *testing.T) { c.run(t, factory(t), f) })
	}
}
