package sqldb

import (
	"context"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
)

// DefaultPrefix begins the name of every table that this library owns.
const DefaultPrefix = "sillar_"

var validPrefix = regexp.MustCompile(`^[a-z][a-z0-9_]{0,30}$`)

// Prefix returns p, or DefaultPrefix where p is empty. A prefix goes into SQL as it is, so only lower-case letters,
// digits and _ are accepted, at most 31.
func Prefix(p string) (string, error) {
	if p == "" {
		return DefaultPrefix, nil
	}
	if !validPrefix.MatchString(p) {
		return "", fmt.Errorf("sqldb: table prefix %q does not match %s", p, validPrefix)
	}
	return p, nil
}

// Migrations returns the files of fsys, a package's Migrations, that belong to a dialect, in order, with prefix
// ("" means DefaultPrefix) in place of the default one. The files lie in migrations/<dialect>/NNNN_name.sql and have
// goose's annotations.
func Migrations(fsys fs.FS, d Dialect, prefix string) (names, scripts []string, err error) {
	prefix, err = Prefix(prefix)
	if err != nil {
		return nil, nil, err
	}
	names, err = fs.Glob(fsys, path.Join("migrations", string(d), "*.sql"))
	if err != nil || len(names) == 0 {
		return nil, nil, fmt.Errorf("sqldb: no migrations for %s", d)
	}
	slices.Sort(names)
	for _, name := range names {
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return nil, nil, fmt.Errorf("sqldb: read migration %s: %w", name, err)
		}
		scripts = append(scripts, strings.ReplaceAll(string(text), DefaultPrefix, prefix))
	}
	return names, scripts, nil
}

// SchemaSQL returns the SQL that makes the tables of fsys, a package's Migrations: to be printed and run by hand.
func SchemaSQL(fsys fs.FS, d Dialect, prefix string) (string, error) {
	_, scripts, err := Migrations(fsys, d, prefix)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, s := range scripts {
		up, _, _ := strings.Cut(s, "-- +goose Down")
		for line := range strings.Lines(up) {
			if !strings.HasPrefix(line, "-- +goose") {
				b.WriteString(line)
			}
		}
	}
	return b.String(), nil
}

// EnsureSchema makes the tables of fsys, a package's Migrations, where they do not exist yet. Several processes may
// call it at once. It is for tests, examples and programs whose first version this is; a program that has been
// released brings tables up to date with package migrate.
func (db *DB) EnsureSchema(ctx context.Context, fsys fs.FS, prefix string) error {
	script, err := SchemaSQL(fsys, db.dialect, prefix)
	if err != nil {
		return err
	}
	return db.InTx(ctx, func(ctx context.Context) error {
		if db.dialect == PostgreSQL { // CREATE ... IF NOT EXISTS races with itself there
			if _, err := db.Querier(ctx).Exec(ctx, "SELECT pg_advisory_xact_lock(7310581)"); err != nil {
				return fmt.Errorf("sqldb: lock for the schema: %w", err)
			}
		}
		if err := db.Exec(ctx, script); err != nil {
			return fmt.Errorf("sqldb: make tables: %w", err)
		}
		return nil
	})
}
