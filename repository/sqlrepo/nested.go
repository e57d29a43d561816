package sqlrepo

import (
	"encoding/json"
	"strings"

	"github.com/sillar-go/sillar/repository/driver"
	"github.com/sillar-go/sillar/repository/sqldb"
)

// field is the SQL of a column, or of a field inside one that is JSON: NULL where that is not there. Text compares by
// its bytes. Index prints the same expression, so that an index serves.
func (w *where) field(i int) string {
	c := w.m.Field(i)
	if c.Path == nil {
		return quote(w.dialect, c.Name)
	}
	if w.dialect == sqldb.SQLite {
		return "json_extract(" + w.holder(c) + ", '$." + strings.Join(c.Path, ".") + "')"
	}
	text := "(" + w.holder(c) + " #>> " + path(c) + ")"
	switch c.Kind {
	case driver.KindBool:
		return "(" + text + "::boolean)"
	case driver.KindInt:
		return "(" + text + "::bigint)"
	case driver.KindFloat:
		return "(" + text + "::double precision)"
	}
	return "(" + text + ` COLLATE "C")`
}

// holder is the column whose JSON holds a field, or the column itself. On PostgreSQL JSON may lie in a column of text.
func (w *where) holder(c driver.Column) string {
	if c.Path != nil {
		c = w.m.Columns[c.In]
	}
	name := quote(w.dialect, c.Name)
	if has, known := w.stored[c.Name]; known && has.typ != "json" && has.typ != "jsonb" {
		name += "::jsonb"
	}
	return name
}

// path is the path of a field as an array of PostgreSQL. Its names have letters, digits and _.
func path(c driver.Column) string { return `'{"` + strings.Join(c.Path, `","`) + `"}'` }

// element selects lists that have an element.
func (w *where) element(c driver.Column, v any) string {
	if w.dialect == sqldb.SQLite {
		each := "json_each(" + quoteTable(w.dialect, w.table) + "." + w.holder(c) // json_each has a column value, too
		if c.Path != nil {
			each += ", '$." + strings.Join(c.Path, ".") + "'"
		}
		test := "value = " + w.arg(v)
		if b, ok := v.(bool); ok { // whose value is a number there
			w.args = w.args[:len(w.args)-1]
			test = "type = 'false'"
			if b {
				test = "type = 'true'"
			}
		}
		return "EXISTS (SELECT 1 FROM " + each + ") WHERE " + test + ")"
	}
	list, _ := json.Marshal([]any{v}) // text, a number or a boolean
	if has := w.stored[c.Name]; c.Path == nil && has.isArray() {
		if s, ok := v.(string); ok && has.typ == "uuid[]" && !uuid.MatchString(s) {
			return "1 = 0"
		}
		literal, _ := arrayOf(string(list))
		return quote(w.dialect, c.Name) + " @> " + w.arg(literal)
	}
	holder := w.holder(c)
	if c.Path != nil {
		holder = "(" + holder + " #> " + path(c) + ")"
	}
	if typ := w.stored[w.m.Columns[c.In].Name].typ; c.Path != nil && typ == "json" ||
		c.Path == nil && w.stored[c.Name].typ == "json" {
		holder += "::jsonb"
	}
	return holder + " @> " + w.arg(string(list)) + "::jsonb"
}
