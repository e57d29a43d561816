package memrepo

import (
	"bytes"
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/sillar-go/sillar/repository/driver"
)

// uniqueSet is a set of columns whose values no two entities share, and who holds which.
type uniqueSet struct {
	columns []int
	holders map[string]string // id by key
}

// key returns the values as text; there is none where one of them is NULL.
func (s uniqueSet) key(m *driver.Mapping, entity any) (string, bool) {
	e := reflect.ValueOf(entity).Elem()
	var b strings.Builder
	for _, c := range s.columns {
		v := m.Columns[c].Value(e)
		if t, ok := v.(time.Time); ok {
			v = t.UnixMicro()
		}
		if v == nil {
			return "", false
		}
		fmt.Fprintf(&b, "%q,", fmt.Sprint(v))
	}
	return b.String(), true
}

// sortBy sorts entities by keys. Their values are looked up once each.
func sortBy[E any](m *driver.Mapping, keys []driver.Key, found []E) {
	type row struct {
		values []any
		entity E
	}
	rows := make([]row, len(found))
	for i, e := range found {
		rows[i] = row{make([]any, len(keys)), e}
		v := reflect.ValueOf(&rows[i].entity).Elem()
		for j, k := range keys {
			rows[i].values[j] = m.Field(k.Column).Value(v)
		}
	}
	slices.SortFunc(rows, func(a, b row) int {
		for j, k := range keys {
			c := compare(a.values[j], b.values[j])
			if k.Desc {
				c = -c
			}
			if c != 0 {
				return c
			}
		}
		return 0
	})
	for i, r := range rows {
		found[i] = r.entity
	}
}

// compare orders two values of one column; NULL, nil, comes before every value.
func compare(a, b any) int {
	switch {
	case a == nil && b == nil:
		return 0
	case a == nil:
		return -1
	case b == nil:
		return 1
	}
	switch x := a.(type) {
	case string:
		return cmp.Compare(x, b.(string))
	case int64:
		return cmp.Compare(x, b.(int64))
	case float64:
		return cmp.Compare(x, b.(float64))
	case time.Time:
		return x.Compare(b.(time.Time))
	case []byte:
		return bytes.Compare(x, b.([]byte))
	case bool:
		y := b.(bool)
		switch {
		case x == y:
			return 0
		case y:
			return -1
		}
		return 1
	}
	return 0
}
