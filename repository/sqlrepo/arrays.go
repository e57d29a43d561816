package sqlrepo

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"strings"

	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/driver"
	"github.com/sillar-go/sillar/repository/sqldb"
)

// statements returns what reads and writes the table.
func (r *Repo[E]) statements(ctx context.Context) *statements {
	r.findArrays(ctx)
	if s := r.found.Load(); s != nil {
		return s
	}
	return &r.sql
}

// findArrays looks which lists of the entity are arrays of PostgreSQL, such as text[], in a table that another program
// made: they are written in another form than JSON.
func (r *Repo[E]) findArrays(ctx context.Context) {
	if r.lists && r.columns.Load() == nil {
		_, _ = r.catalog(ctx) // an error will show in the statement itself
	}
}

// hasLists reports whether there may be arrays.
func hasLists(d sqldb.Dialect, m *driver.Mapping) bool {
	for _, c := range m.Columns {
		if _, list := c.Element(); list && d == sqldb.PostgreSQL {
			return true
		}
	}
	return false
}

// isArray reports whether a column is an array of PostgreSQL.
func (r *Repo[E]) isArray(i int) bool {
	if !r.lists {
		return false
	}
	stored := r.columns.Load()
	_, list := r.m.Columns[i].Element()
	return list && stored != nil && (*stored)[r.m.Columns[i].Name].isArray()
}

// arrayOf turns a list of JSON into an array of PostgreSQL as text, or into nil for null.
func arrayOf(text string) (any, error) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var list []any
	if err := d.Decode(&list); err != nil {
		return nil, err
	}
	if list == nil {
		return nil, nil
	}
	parts := make([]string, len(list))
	for i, v := range list {
		switch v := v.(type) {
		case nil:
			parts[i] = "NULL"
		case string:
			parts[i] = `"` + escaped.Replace(v) + `"`
		case bool, json.Number:
			parts[i] = fmt.Sprint(v)
		default:
			return nil, fmt.Errorf("%w: an array holds text, numbers and booleans", repository.ErrValue)
		}
	}
	return "{" + strings.Join(parts, ",") + "}", nil
}

var (
	escaped = strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	// bounds precede an array that does not begin at 1.
	bounds = regexp.MustCompile(`^\[-?[0-9]+:-?[0-9]+\]=`)
)

// fromArray turns an array of PostgreSQL into JSON, where a list is read from one. What is no array stays as it is.
func fromArray(c driver.Column, src any) any {
	elem, list := c.Element()
	if !list {
		return src
	}
	var text string
	switch s := src.(type) {
	case string:
		text = s
	case []byte:
		text = string(s)
	}
	text = bounds.ReplaceAllString(text, "")
	if !strings.HasPrefix(text, "{") { // no list of JSON begins so
		return src
	}
	elements, ok := split(text)
	if !ok {
		return src
	}
	parts := make([]string, len(elements))
	for i, e := range elements {
		parts[i] = e.json(elem)
	}
	return "[" + strings.Join(parts, ",") + "]"
}

// arrayElement is a part of an array. What is not quoted may be NULL.
type arrayElement struct {
	text   string
	quoted bool
}

func (e arrayElement) json(t reflect.Type) string {
	k := driver.KindOf(t)
	switch {
	case e.text == "NULL" && !e.quoted:
		return "null"
	case k == driver.KindBool:
		return fmt.Sprint(e.text == "t")
	case k == driver.KindInt, k == driver.KindFloat:
		return e.text
	}
	text, _ := json.Marshal(e.text)
	return string(text)
}

// split reads an array of one dimension, as PostgreSQL prints it.
func split(text string) (list []arrayElement, ok bool) {
	text, ok = strings.CutSuffix(text[1:], "}")
	if !ok || text == "" {
		return nil, ok
	}
	for {
		var e arrayElement
		if e.quoted = strings.HasPrefix(text, `"`); e.quoted {
			var b strings.Builder
			i := 1
			for ; i < len(text) && text[i] != '"'; i++ {
				if text[i] == '\\' && i+1 < len(text) {
					i++
				}
				b.WriteByte(text[i])
			}
			if i >= len(text) {
				return nil, false
			}
			e.text, text = b.String(), text[i+1:]
		} else {
			i := strings.IndexByte(text, ',')
			if i < 0 {
				i = len(text)
			}
			e.text, text = text[:i], text[i:]
			if strings.ContainsAny(e.text, `{}"`) { // another dimension
				return nil, false
			}
		}
		list = append(list, e)
		if text == "" {
			return list, true
		}
		if text, ok = strings.CutPrefix(text, ","); !ok {
			return nil, false
		}
	}
}
