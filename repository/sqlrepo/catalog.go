package sqlrepo

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/sillar-go/sillar/repository/driver"
	"github.com/sillar-go/sillar/repository/sqldb"
)

// column is a column as the database has it.
type column struct {
	typ      string // such as uuid, text or a name of an enum
	required bool   // not null, and without a default
	unique   bool   // by itself
}

func (c column) isArray() bool { return strings.HasSuffix(c.typ, "[]") }

// catalog returns the columns of the table by name, from the database once. It is nil where there is no such table.
func (r *Repo[E]) catalog(ctx context.Context) (map[string]column, error) {
	if c := r.columns.Load(); c != nil {
		return *c, nil
	}
	query := `SELECT name, lower(type), "notnull" = 1 AND dflt_value IS NULL, pk = 1 AND
			(SELECT count(*) FROM pragma_table_info($1, $2) WHERE pk > 0) = 1 FROM pragma_table_info($1, $2)`
	schema, table, qualified := strings.Cut(r.table, ".")
	if !qualified {
		schema, table = "main", r.table
	}
	args := []any{table, schema}
	if r.db.Dialect() == sqldb.PostgreSQL {
		query = `SELECT a.attname, format_type(a.atttypid, NULL),
				a.attnotnull AND NOT a.atthasdef AND a.attidentity = '', EXISTS (SELECT 1 FROM pg_index i
					WHERE i.indrelid = a.attrelid AND i.indisunique AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum)
			FROM pg_attribute a WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped`
		args = []any{quoteTable(sqldb.PostgreSQL, r.table)}
	}
	rows, err := r.db.Querier(ctx).Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	return r.readColumns(rows)
}

// readColumns keeps what the catalogue says of each column.
func (r *Repo[E]) readColumns(rows sqldb.Rows) (map[string]column, error) {
	found := map[string]column{}
	for rows.Next() {
		var name string
		var c column
		if err := rows.Scan(&name, &c.typ, &c.required, &c.unique); err != nil {
			return nil, errors.Join(err, rows.Close())
		}
		found[name] = c
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil || len(found) == 0 {
		return nil, err
	}
	r.columns.Store(&found)
	if r.lists && slices.ContainsFunc(slices.Collect(maps.Values(found)), column.isArray) {
		s := build(r.db.Dialect(), r.table, r.m, r.isArray)
		r.found.Store(&s)
	}
	return found, nil
}

// SchemaError says in what a table does not fit an entity. Check returns it.
type SchemaError struct {
	// Table is the name of the table.
	Table string
	// Problems say what is missing or does not fit, a column each.
	Problems []string
}

// Error implements error.
func (e *SchemaError) Error() string {
	return fmt.Sprintf("sqlrepo: table %s does not fit: %s", e.Table, strings.Join(e.Problems, "; "))
}

// families are the types of PostgreSQL that hold a kind. Other types are not judged, such as enums and domains.
var families = map[driver.Kind]string{
	driver.KindBool:  "boolean",
	driver.KindInt:   "smallint integer bigint numeric",
	driver.KindFloat: "real double precision numeric",
	driver.KindTime:  "timestamp with time zone",
	driver.KindBytes: "bytea",
	driver.KindJSON:  "json jsonb text character varying",
}

// elements are the types whose arrays hold lists of a kind.
var elements = map[driver.Kind]string{
	driver.KindBool:   "boolean",
	driver.KindInt:    "smallint integer bigint numeric",
	driver.KindFloat:  "real double precision numeric",
	driver.KindString: "text character varying uuid",
	driver.KindJSON:   "text character varying uuid", // types that are text in JSON
}

// known are the types of PostgreSQL that families tells apart.
const known = " boolean smallint integer bigint numeric real double precision timestamp with time zone bytea json " +
	"jsonb text character varying " +
	"timestamp without time zone date uuid "

// Check compares the table with the entity and returns a *SchemaError that names everything that does not fit: columns
// that are missing, columns of types that cannot hold the field (on PostgreSQL), columns that must have a value and are
// no field, an id that is not unique. Call it at start, after migrations.
func (r *Repo[E]) Check(ctx context.Context) error {
	r.columns.Store(nil)
	r.found.Store(nil)
	stored, err := r.catalog(ctx)
	if err != nil {
		return r.fail("check", err)
	}
	if stored == nil {
		return &SchemaError{r.table, []string{"there is no such table"}}
	}
	e := &SchemaError{Table: r.table}
	bad := func(format string, args ...any) { e.Problems = append(e.Problems, fmt.Sprintf(format, args...)) }
	mapped := map[string]bool{}
	for i, c := range r.m.Columns {
		mapped[c.Name] = true
		has, ok := stored[c.Name]
		family := families[c.Kind]
		elem, list := c.Element()
		switch {
		case !ok:
			bad("column %s is missing", c.Name)
		case i == r.m.ID && !has.unique:
			bad("column %s is not unique: make it the primary key", c.Name)
		case r.db.Dialect() != sqldb.PostgreSQL || c.Valuer:
		case has.typ == "timestamp without time zone" && c.Kind == driver.KindTime:
			bad("column %s is a timestamp without time zone: make it one with", c.Name)
		case list && has.isArray():
			if of := strings.TrimSuffix(has.typ, "[]"); contains(known, of) && !contains(elements[driver.KindOf(elem)], of) {
				bad("column %s is of type %s, which holds no list of %s", c.Name, has.typ, elem)
			}
		case family != "" && contains(known, has.typ) && !contains(family, has.typ):
			bad("column %s is of type %s: want one of %s", c.Name, has.typ, family)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(stored)) {
		if !mapped[name] && stored[name].required {
			bad("column %s must have a value and is no field: give it a default", name)
		}
	}
	if len(e.Problems) > 0 {
		return e
	}
	return nil
}

func contains(list, typ string) bool { return strings.Contains(" "+list+" ", " "+typ+" ") }

var uuid = regexp.MustCompile(`^[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}$`)

// possible reports whether there can be an entity with the id: PostgreSQL must not be asked for what it cannot hold.
func (r *Repo[E]) possible(id string) bool {
	if r.db.Dialect() != sqldb.PostgreSQL {
		return true
	}
	if c := r.columns.Load(); c != nil && (*c)[r.m.Columns[r.m.ID].Name].typ == "uuid" && !uuid.MatchString(id) {
		return false
	}
	return holds(id)
}

// refuses reports whether an error says that the id can be none of the table's, such as a text that is no UUID.
func (r *Repo[E]) refuses(ctx context.Context, id string) bool {
	if r.db.Dialect() != sqldb.PostgreSQL || ctx.Err() != nil || r.columns.Load() != nil {
		return false
	}
	if _, err := r.catalog(r.db.WithoutTx(ctx)); err != nil { // the error may have ended the transaction
		return false
	}
	return !r.possible(id)
}

// where returns a renderer of filters. On PostgreSQL it needs to know how columns sort.
func (r *Repo[E]) where(ctx context.Context) *where {
	w := &where{dialect: r.db.Dialect(), table: r.table, m: r.m}
	if w.dialect == sqldb.PostgreSQL {
		w.stored, _ = r.catalog(ctx) // an error will show in the statement itself
	}
	return w
}
