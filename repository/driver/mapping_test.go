package driver_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/driver"
)

type (
	stamp     time.Time
	onlyOut   struct{ X int }
	byPointer struct{ x int }
	hidden    struct{ Shown, hidden int }
	twoNames  struct {
		A int `json:"x"`
		B int `json:"X"`
	}
	inner    struct{ A, B int }
	shadowed struct {
		inner
		A string
	}
	other     struct{ A int }
	ambiguous struct {
		inner
		other
	}
	stamped struct {
		time.Time
		Note string
	}
	sourced struct {
		sql.NullString
		Source string
	}
	halfway struct { // writes by a method of its own, and reads by one that is promoted
		time.Time
		Note string
	}
	annotated struct {
		time.Time
		Note string
	}
	recursive struct {
		Next *recursive
		Kids []recursive
		Name string
	}
	stringer interface{ String() string }
)

func (onlyOut) MarshalJSON() ([]byte, error)      { return []byte(`1`), nil }
func (b *byPointer) MarshalJSON() ([]byte, error) { return json.Marshal(b.x) }
func (b *byPointer) UnmarshalJSON(d []byte) error { return json.Unmarshal(d, &b.x) }

func (halfway) MarshalJSON() ([]byte, error)   { return []byte(`1`), nil }
func (annotated) MarshalJSON() ([]byte, error) { return []byte(`1`), nil }
func (*annotated) UnmarshalJSON([]byte) error  { return nil }

type with[T any] struct {
	repository.Meta
	Field T
}

// New refuses, by the name of the type, what would be read back as something else; it accepts what comes back as it
// was.
func TestMappingRefusesWhatItWouldLose(t *testing.T) {
	refused := map[string]error{
		"stamp": mapping[with[stamp]](), "hidden": mapping[with[hidden]](), "twoNames": mapping[with[twoNames]](),
		"onlyOut": mapping[with[onlyOut]](), "byPointer": mapping[with[map[string]byPointer]](),
		"chan int": mapping[with[chan int]](), "func": mapping[with[func()]](), "complex128": mapping[with[complex128]](),
		"stringer": mapping[with[stringer]](),
		"Mutex":    mapping[with[struct{ Mu sync.Mutex }]](), "Context": mapping[with[context.Context]](),
		"shadowed": mapping[with[shadowed]](), "ambiguous": mapping[with[[]ambiguous]](),
		"stamped": mapping[with[stamped]](), "sourced": mapping[with[*sourced]](), "halfway": mapping[with[halfway]](),
		"[2]int": mapping[with[map[[2]int]string]](),
	}
	for name, err := range refused {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v, want an error that names it", name, err)
		}
	}
	for name, err := range map[string]error{
		"recursive": mapping[with[recursive]](), "a slice of byPointer": mapping[with[[]byPointer]](),
		"big.Int": mapping[with[*big.Int]](), "any": mapping[with[map[string]any]](),
		"RawMessage": mapping[with[json.RawMessage]](), "times": mapping[with[[]time.Time]](),
		"own methods": mapping[with[annotated]](), "embedded": mapping[with[struct {
			inner
			C string
		}]](),
		"int keys": mapping[with[map[int64]string]](), "struct": mapping[with[struct{ A, B int }]](),
		"left out": mapping[with[struct {
			A int
			F func() `json:"-"`
		}]](), "uint64": mapping[with[uint64]](),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func mapping[E any]() error {
	_, err := driver.MappingOf[E]()
	return err
}
