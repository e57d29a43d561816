package memrepo

import (
	"reflect"
	"slices"
	"strings"

	"github.com/sillar-go/sillar/repository/driver"
)

// matches evaluates a filter: two-valued, a comparison with NULL is false.
func matches(m *driver.Mapping, n driver.Node, entity reflect.Value) bool {
	switch n.Op {
	case driver.OpAll:
		return true
	case driver.OpAnd:
		return !slices.ContainsFunc(n.Kids, func(k driver.Node) bool { return !matches(m, k, entity) })
	case driver.OpOr:
		return slices.ContainsFunc(n.Kids, func(k driver.Node) bool { return matches(m, k, entity) })
	case driver.OpNot:
		return !matches(m, n.Kids[0], entity)
	}
	if n.Op == driver.OpElement {
		return m.Field(n.Column).Contains(entity, n.Value)
	}
	v := m.Field(n.Column).Value(entity)
	if n.Op == driver.OpNull || v == nil {
		return n.Op == driver.OpNull && v == nil
	}
	switch n.Op {
	case driver.OpEq:
		return compare(v, n.Value) == 0
	case driver.OpNe:
		return compare(v, n.Value) != 0
	case driver.OpLt:
		return compare(v, n.Value) < 0
	case driver.OpLte:
		return compare(v, n.Value) <= 0
	case driver.OpGt:
		return compare(v, n.Value) > 0
	case driver.OpGte:
		return compare(v, n.Value) >= 0
	case driver.OpIn:
		return slices.ContainsFunc(n.Values, func(w any) bool { return compare(v, w) == 0 })
	case driver.OpPrefix:
		return strings.HasPrefix(v.(string), n.Value.(string))
	case driver.OpContains:
		return strings.Contains(v.(string), n.Value.(string))
	case driver.OpContainsFold:
		return strings.Contains(lower(v.(string)), lower(n.Value.(string)))
	}
	return false
}

// lower makes ASCII letters small.
func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}
