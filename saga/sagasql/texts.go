package sagasql

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/sillar-go/sillar/repository/sqldb"
	"github.com/sillar-go/sillar/saga"
)

// storable reports whether the database can hold a text. PostgreSQL fails a statement for one that it cannot hold, also
// where the statement only looks for it.
func (s *Store) storable(text string) bool {
	return s.db.Dialect() != sqldb.PostgreSQL || utf8.ValidString(text) && !strings.Contains(text, "\x00")
}

// checkSignal returns ErrUnstorable for the name of a signal that does not come back from JSON as it was.
func checkSignal(name string) error {
	if !utf8.ValidString(name) {
		return fmt.Errorf("%w: the name of a signal is not valid UTF-8", saga.ErrUnstorable)
	}
	return nil
}

// possible takes out of f what the database cannot hold, and so what no saga has. It reports false when f selects none.
func (s *Store) possible(f saga.Filter) (saga.Filter, bool) {
	not := func(text string) bool { return !s.storable(text) }
	if not(f.Name) || not(f.Attribute) || not(f.Value) {
		return f, false
	}
	if slices.ContainsFunc(f.IDs, not) {
		f.IDs = slices.DeleteFunc(slices.Clone(f.IDs), not)
		if len(f.IDs) == 0 {
			return f, false
		}
	}
	unknown := func(status saga.Status) bool { return not(string(status)) }
	if slices.ContainsFunc(f.Statuses, unknown) {
		f.Statuses = slices.DeleteFunc(slices.Clone(f.Statuses), unknown)
		if len(f.Statuses) == 0 {
			return f, false
		}
	}
	if not(f.After) {
		f.After = strings.ReplaceAll(strings.ToValidUTF8(f.After, ""), "\x00", "")
	}
	return f, true
}
