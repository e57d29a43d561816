package sqlrepo

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/driver"
	"github.com/sillar-go/sillar/repository/sqldb"
)

// Schema returns a CREATE TABLE statement that fits E, for migrations, and one CREATE UNIQUE INDEX for each set of
// columns in unique. Index makes those for pages.
func Schema[E any](d sqldb.Dialect, table string, unique ...[]string) (string, error) {
	if !validTable.MatchString(table) {
		return "", fmt.Errorf("sqlrepo: table name %q does not match %s", table, validTable)
	}
	m, err := driver.MappingOf[E]()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "CREATE TABLE IF NOT EXISTS %s (\n", quoteTable(d, table))
	for i, c := range m.Columns {
		fmt.Fprintf(&b, "\t%s %s", quote(d, c.Name), columnType(d, c.Kind))
		switch {
		case i == m.ID:
			b.WriteString(" PRIMARY KEY")
		case !c.MayBeNull() && c.Kind != driver.KindBytes:
			b.WriteString(" NOT NULL")
		}
		if i < len(m.Columns)-1 {
			b.WriteString(",")
		}
		b.WriteString("\n")
	}
	b.WriteString(");\n")
	for _, set := range unique {
		names := make([]string, len(set))
		for i, c := range set {
			if _, ok := m.Column(c); !ok {
				return "", &repository.FieldError{Field: c, Reason: "is unknown"}
			}
			names[i] = quote(d, c)
		}
		fmt.Fprintf(&b, "CREATE UNIQUE INDEX IF NOT EXISTS %s ON %s (%s);\n", quote(d, indexName(table, set, "key")),
			quoteTable(d, table), strings.Join(names, ", "))
	}
	return b.String(), nil
}

// Index returns a CREATE INDEX statement, for migrations, that serves pages of E sorted by columns, all upwards or all
// downwards: it ends with the id, as the order of every page does, and has NULL where pages have it. A page then costs
// the same at any depth, also where many rows share a value.
func Index[E any](d sqldb.Dialect, table string, columns ...string) (string, error) {
	if !validTable.MatchString(table) {
		return "", fmt.Errorf("sqlrepo: table name %q does not match %s", table, validTable)
	}
	m, err := driver.MappingOf[E]()
	if err != nil {
		return "", err
	}
	w, id := &where{dialect: d, m: m}, m.Columns[m.ID].Name
	parts := make([]string, len(columns), len(columns)+1)
	for i, name := range columns {
		at, ok := m.Find(name)
		switch {
		case !ok:
			return "", &repository.FieldError{Field: name, Reason: "is unknown"}
		case m.Field(at).Kind == driver.KindJSON:
			return "", &repository.FieldError{Field: name, Reason: "is stored as JSON and has no order"}
		}
		parts[i] = w.field(at)
		if m.Field(at).Path != nil {
			parts[i] = "(" + parts[i] + ")" // PostgreSQL wants expressions in parentheses
		}
		if d == sqldb.PostgreSQL && m.Field(at).MayBeNull() { // SQLite has NULL first by itself
			parts[i] += " NULLS FIRST"
		}
	}
	if !slices.Contains(columns, id) {
		parts = append(parts, quote(d, id))
	}
	return fmt.Sprintf("CREATE INDEX IF NOT EXISTS %s ON %s (%s);\n", quote(d, indexName(table, columns, "idx")),
		quoteTable(d, table), strings.Join(parts, ", ")), nil
}

func indexName(table string, columns []string, end string) string {
	return strings.ReplaceAll(table+"_"+strings.Join(columns, "_")+"_"+end, ".", "_")
}

func columnType(d sqldb.Dialect, k driver.Kind) string {
	pg := d == sqldb.PostgreSQL
	switch k {
	case driver.KindBool:
		return "BOOLEAN"
	case driver.KindInt:
		return "BIGINT"
	case driver.KindFloat:
		return "DOUBLE PRECISION"
	case driver.KindTime:
		if pg {
			return "TIMESTAMPTZ"
		}
		return "BIGINT"
	case driver.KindBytes:
		if pg {
			return "BYTEA"
		}
		return "BLOB"
	case driver.KindJSON:
		if pg {
			return "JSONB"
		}
		return "TEXT"
	}
	if pg {
		return `TEXT COLLATE "C"`
	}
	return "TEXT"
}
