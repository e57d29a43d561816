package driver

import (
	"reflect"
	"time"
)

// Op is what a Node does.
type Op int

// The operators.
const (
	OpAll          Op = iota // matches everything
	OpAnd                    // all Kids match
	OpOr                     // at least one of Kids matches
	OpNot                    // Kids[0] does not match
	OpEq                     // the field equals Value
	OpNe                     // the field is not NULL and differs from Value
	OpLt                     // the field is less than Value
	OpLte                    // the field is at most Value
	OpGt                     // the field is greater than Value
	OpGte                    // the field is at least Value
	OpIn                     // the field equals one of Values
	OpPrefix                 // the field begins with Value, a string
	OpNull                   // the field is NULL
	OpContains               // the field contains Value, a string
	OpContainsFold           // as OpContains; ASCII letters match in either case
	OpElement                // the field is a list that has Value, what Element returns
)

// Node is a filter as a tree. Values have the types of Column.Kind: string, bool, int64,
// float64, time.Time in UTC, []byte.
type Node struct {
	Op     Op
	Column int // place, see Mapping.Field
	Value  any
	Values []any
	Kids   []Node
}

// Normal brings a value to the type that Node documents.
func Normal(v any) any {
	switch t := v.(type) {
	case nil, string, bool, int64, float64, []byte:
		return v
	case time.Time:
		return normalTime(t)
	}
	r := reflect.ValueOf(v)
	if isValuer(r.Type()) {
		p := reflect.New(r.Type()).Elem() // addressable
		p.Set(r)
		if d, err := driverValue(p); err == nil {
			return d
		}
		return v
	}
	switch KindOf(r.Type()) {
	case KindString:
		return r.String()
	case KindBool:
		return r.Bool()
	case KindInt:
		if r.CanUint() {
			return int64(r.Uint()) // at most 32 bits, see kindOf
		}
		return r.Int()
	case KindFloat:
		return r.Float()
	case KindBytes:
		return r.Bytes()
	}
	return v
}
