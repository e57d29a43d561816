package sqlrepo

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/driver"
	"github.com/sillar-go/sillar/repository/internal/prefix"
	"github.com/sillar-go/sillar/repository/sqldb"
)

// quote quotes a name, so that it may be a reserved word and keeps its case. Names come from Config and from Go source
// only, and match [A-Za-z0-9_.]. On SQLite a name in double quotes that is no column is a text; one in brackets is an
// error, as everywhere.
func quote(d sqldb.Dialect, name string) string {
	if d == sqldb.SQLite {
		return "[" + name + "]"
	}
	return `"` + name + `"`
}

// quoteTable quotes the parts of a table's name.
func quoteTable(d sqldb.Dialect, table string) string {
	if schema, name, ok := strings.Cut(table, "."); ok {
		return quote(d, schema) + "." + quote(d, name)
	}
	return quote(d, table)
}

// statements are built once for a type.
type statements struct {
	insert, put, selects, get, lock, getMany, getManyUUID, delete string
}

// build builds them. Arrays of PostgreSQL are read as text: drivers have other forms for each type.
func build(d sqldb.Dialect, table string, m *driver.Mapping, isArray func(i int) bool) statements {
	var names, reads, holders []string
	for i, c := range m.Columns {
		names, reads = append(names, quote(d, c.Name)), append(reads, quote(d, c.Name))
		if isArray(i) {
			reads[i] = quoteTable(d, table) + "." + reads[i] + "::text"
		}
		holders = append(holders, fmt.Sprintf("$%d", i+1))
	}
	table = quoteTable(d, table)
	id := quote(d, m.Columns[m.ID].Name)
	s := statements{
		insert: fmt.Sprintf("INSERT INTO %s (%s) VALUES (%s)", table, strings.Join(names, ", "),
			strings.Join(holders, ", ")),
		selects: fmt.Sprintf("SELECT %s FROM %s", strings.Join(reads, ", "), table),
		delete:  fmt.Sprintf("DELETE FROM %s WHERE %s = $1", table, id),
	}
	s.put = s.insert + putSQL(d, table, m, strings.Join(reads, ", "))
	s.get = s.selects + " WHERE " + id + " = $1"
	s.lock = s.get
	s.getMany = s.selects + " WHERE " + id + " IN (SELECT value FROM json_each($1))"
	if d == sqldb.PostgreSQL {
		s.lock += " FOR UPDATE"
		s.getMany = s.selects + " WHERE " + id + " = ANY (ARRAY(SELECT json_array_elements_text($1::json)))"
		s.getManyUUID = s.selects + " WHERE " + id + " = ANY (ARRAY(SELECT json_array_elements_text($1::json)::uuid))"
	}
	return s
}

// putSQL is the end of an insert that changes the row where there is one.
func putSQL(d sqldb.Dialect, table string, m *driver.Mapping, names string) string {
	var sets []string
	for i, c := range m.Columns {
		name := quote(d, c.Name)
		switch i {
		case m.ID, m.CreatedAt:
		case m.Version:
			sets = append(sets, name+" = "+table+"."+name+" + 1")
		default:
			sets = append(sets, name+" = excluded."+name)
		}
	}
	return " ON CONFLICT (" + quote(d, m.Columns[m.ID].Name) + ") DO UPDATE SET " + strings.Join(sets, ", ") +
		" RETURNING " + names
}

// update returns the statement that writes columns of a row that has an id and a version.
func update(d sqldb.Dialect, table string, m *driver.Mapping, columns []int) string {
	var b strings.Builder
	b.WriteString("UPDATE " + quoteTable(d, table) + " SET ")
	for i, c := range columns {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s = $%d", quote(d, m.Columns[c].Name), i+1)
	}
	fmt.Fprintf(&b, " WHERE %s = $%d AND %s = $%d", quote(d, m.Columns[m.ID].Name), len(columns)+1,
		quote(d, m.Columns[m.Version].Name), len(columns)+2)
	return b.String()
}

// where renders filters. Values always travel as arguments.
type where struct {
	dialect sqldb.Dialect
	table   string
	m       *driver.Mapping
	stored  map[string]column // on PostgreSQL, where it is known
	args    []any
	err     error
}

func (w *where) arg(v any) string {
	w.args = append(w.args, value(w.dialect, v))
	return fmt.Sprintf("$%d", len(w.args))
}

// column names a column in a comparison of order. On PostgreSQL it sorts as it was defined, so that its index serves;
// what is not known to be there is text by its bytes.
func (w *where) column(i int) string {
	c := w.m.Field(i)
	if c.Path != nil {
		return w.field(i)
	}
	_, known := w.stored[c.Name]
	if w.dialect == sqldb.PostgreSQL && c.Kind == driver.KindString && !known {
		return quote(w.dialect, c.Name) + ` COLLATE "C"`
	}
	return quote(w.dialect, c.Name)
}

func (w *where) render(n driver.Node) string {
	switch n.Op {
	case driver.OpAll:
		return "1 = 1"
	case driver.OpAnd:
		return w.join(n.Kids, " AND ", "1 = 1")
	case driver.OpOr:
		return w.join(n.Kids, " OR ", "1 = 0")
	case driver.OpNot:
		return "(" + w.render(n.Kids[0]) + ") IS NOT TRUE" // NULL counts as false
	}
	name := w.field(n.Column)
	if sql, decided := w.foreign(name, n); decided {
		return sql
	}
	switch n.Op {
	case driver.OpEq:
		return name + " = " + w.arg(n.Value)
	case driver.OpNe:
		return name + " <> " + w.arg(n.Value)
	case driver.OpLt:
		return w.column(n.Column) + " < " + w.arg(n.Value)
	case driver.OpLte:
		return w.column(n.Column) + " <= " + w.arg(n.Value)
	case driver.OpGt:
		return w.column(n.Column) + " > " + w.arg(n.Value)
	case driver.OpGte:
		return w.column(n.Column) + " >= " + w.arg(n.Value)
	case driver.OpNull:
		return name + " IS NULL"
	case driver.OpPrefix:
		if w.dialect == sqldb.PostgreSQL {
			return "starts_with(" + name + ", " + w.arg(n.Value) + ")"
		}
		return w.between(name, n.Value.(string))
	case driver.OpContains:
		return w.position(name, w.arg(n.Value))
	case driver.OpContainsFold:
		return w.position(w.lower(name), w.lower(w.arg(n.Value)))
	case driver.OpElement:
		return w.element(w.m.Field(n.Column), n.Value)
	case driver.OpIn:
		if len(n.Values) == 0 {
			return "1 = 0"
		}
		list := make([]string, len(n.Values))
		for i, v := range n.Values {
			list[i] = w.arg(v)
		}
		return name + " IN (" + strings.Join(list, ", ") + ")"
	}
	w.err = &repository.QueryError{Reason: fmt.Sprintf("unknown operator %d", n.Op)}
	return ""
}

// foreign decides comparisons with text that PostgreSQL refuses to hear of, since it cannot hold it: nothing there
// equals it. Other databases are asked.
func (w *where) foreign(name string, n driver.Node) (sql string, decided bool) {
	if w.dialect != sqldb.PostgreSQL {
		return "", false
	}
	if s, ok := n.Value.(string); ok && !holds(s) {
		switch n.Op {
		case driver.OpEq, driver.OpPrefix, driver.OpContains, driver.OpContainsFold, driver.OpElement:
			return "1 = 0", true
		case driver.OpNe:
			return name + " IS NOT NULL", true
		}
		w.err = &repository.QueryError{Reason: "text with NUL, or that is no UTF-8, has no place in PostgreSQL's order"}
		return "", true
	}
	foreign := func(v any) bool { s, ok := v.(string); return ok && !holds(s) }
	if n.Op == driver.OpIn && slices.ContainsFunc(n.Values, foreign) {
		n.Values = slices.DeleteFunc(slices.Clone(n.Values), foreign)
		return w.render(n), true
	}
	return "", false
}

// position selects what contains a text.
func (w *where) position(name, part string) string {
	if w.dialect == sqldb.PostgreSQL {
		return "strpos(" + name + ", " + part + ") > 0"
	}
	return "instr(" + name + ", " + part + ") > 0"
}

// lower makes ASCII letters small, and no others: in the collation C PostgreSQL knows no others either.
func (w *where) lower(name string) string {
	if w.dialect == sqldb.PostgreSQL {
		return "lower(" + name + ` COLLATE "C")`
	}
	return "lower(" + name + ")"
}

// between selects what begins with a text as SQLite compares it, by its bytes: so an index serves.
func (w *where) between(name, begin string) string {
	name += " COLLATE BINARY"
	sql := name + " >= " + w.arg(begin)
	if end, ok := prefix.End(begin); ok {
		return "(" + sql + " AND " + name + " < " + w.arg(end) + ")"
	}
	return sql
}

// holds reports whether PostgreSQL can hold a text.
func holds(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

func (w *where) join(kids []driver.Node, op, empty string) string {
	if len(kids) == 0 {
		return empty
	}
	parts := make([]string, len(kids))
	for i, k := range kids {
		parts[i] = w.render(k)
	}
	return "(" + strings.Join(parts, op) + ")"
}

// page renders what a plan selects. Where the database can compare whole rows it does, (a, id) > ($1, $2), so that an
// index on the keys begins where the page begins, also among rows that have a in common.
func (w *where) page(p *driver.Plan) string {
	if !w.comparesRows(p) {
		return w.render(p.Where)
	}
	op := ") > ("
	if p.Keys[0].Desc {
		op = ") < ("
	}
	filter := w.render(p.Filter)
	names, values := make([]string, len(p.Keys)), make([]string, len(p.Keys))
	for i, k := range p.Keys {
		names[i], values[i] = w.column(k.Column), w.arg(p.After[i])
	}
	return "(" + filter + ") AND (" + strings.Join(names, ", ") + op + strings.Join(values, ", ") + ")"
}

// comparesRows reports whether what follows a cursor is a comparison of rows: that is so with one direction and without
// NULL. Upwards NULL comes first, so that no row with NULL follows one without, and the comparison selects none.
func (w *where) comparesRows(p *driver.Plan) bool {
	if len(p.After) < 2 {
		return false
	}
	for i, k := range p.Keys {
		text, isText := p.After[i].(string)
		switch {
		case k.Desc != p.Keys[0].Desc, k.Desc && w.m.Field(k.Column).MayBeNull(), p.After[i] == nil:
			return false
		case isText && w.dialect == sqldb.PostgreSQL && !holds(text):
			return false
		}
	}
	return true
}

func (w *where) order(keys []driver.Key) string {
	parts := make([]string, len(keys))
	for i, k := range keys {
		parts[i] = w.column(k.Column)
		nulls := " NULLS FIRST"
		if k.Desc {
			parts[i] += " DESC"
			nulls = " NULLS LAST"
		}
		if w.m.Field(k.Column).MayBeNull() {
			parts[i] += nulls
		}
	}
	return " ORDER BY " + strings.Join(parts, ", ")
}

func (w *where) limit(limit, offset int) string {
	s := fmt.Sprintf(" LIMIT %d", limit)
	if offset > 0 {
		s += fmt.Sprintf(" OFFSET %d", offset)
	}
	return s
}
