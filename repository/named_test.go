package repository_test

import (
	"errors"
	"testing"
	"time"

	"github.com/sillar-go/sillar/repository"
)

var namedConditions = []struct {
	field, operator, value string
	want                   any // nil: refused
}{
	{"name", "eq", "x", "x"}, {"name", "icontains", "x", "x"}, {"price", "gte", "1000", int64(1000)},
	{"price", "lt", "x", nil},
	{"price", "prefix", "1", nil}, {"ratio", "ne", "1.5", 1.5}, {"ratio", "eq", "NaN", nil}, {"on", "eq", "true", true},
	{"on", "eq", "maybe", nil},
	{"made", "lte", "2020-01-02T03:04:05+01:00", time.Date(2020, 1, 2, 2, 4, 5, 0, time.UTC)},
	{"made", "lte", "yesterday", nil},
	{"name", "like", "x", nil}, {"price", "eq", "99999999999999999999", nil},
}

func TestNamedWhere(t *testing.T) {
	type thing struct {
		repository.Meta
		Name  string
		Price int64
		Ratio float64
		On    bool
		Made  time.Time
		Tags  []string
	}
	for _, c := range namedConditions {
		f, err := repository.Named[thing](c.field)
		if err != nil {
			t.Fatal(err)
		}
		filter, err := f.Where(c.operator, c.value)
		if c.want == nil {
			if !errors.Is(err, repository.ErrQuery) {
				t.Errorf("%s %s %q: %v, want repository.ErrQuery", c.field, c.operator, c.value, err)
			}
			continue
		}
		if n, nerr := filter.Node(); err != nil || nerr != nil || n.Value != c.want {
			t.Errorf("%s %s %q: %v, %v, want %v", c.field, c.operator, c.value, n.Value, err, c.want)
		}
	}
	if _, err := repository.Named[thing]("tags"); !errors.Is(err, repository.ErrQuery) {
		t.Errorf("a field that is JSON: %v", err)
	}
}
