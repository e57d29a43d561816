// Package migrate brings the tables of the library's packages up to date with goose, recorded in a version table for
// each package, so that packages of different age live in one database.
//
//	err := migrate.Up(ctx, db, migrate.Set{Name: "outbox", FS: sqloutbox.Migrations})
//
// It works on databases that sqldb opened. It alone imports goose; programs with migration tools of their own print
// the SQL with sqldb.SchemaSQL instead.
package migrate

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"

	"github.com/sillar-go/sillar/repository/sqldb"
)

// Set is the migrations of one package.
type Set struct {
	// Name tells the sets of one database apart: the version table is <prefix>migrations_<Name>. Required.
	Name string
	// FS is the package's Migrations. Required.
	FS fs.FS
	// Prefix begins the tables' names. Empty means sqldb.DefaultPrefix.
	Prefix string
}

// Up applies what is missing of each set, in order, each migration in a transaction of its own. It stops at the
// first error.
func Up(ctx context.Context, db *sqldb.DB, sets ...Set) error {
	for _, s := range sets {
		if err := s.each(db, func(p *goose.Provider) error { _, err := p.Up(ctx); return err }); err != nil {
			return fmt.Errorf("migrate: %s: %w", s.Name, err)
		}
	}
	return nil
}

// Down takes back the last applied migration of a set.
func Down(ctx context.Context, db *sqldb.DB, s Set) error {
	if err := s.each(db, func(p *goose.Provider) error { _, err := p.Down(ctx); return err }); err != nil {
		return fmt.Errorf("migrate: %s: %w", s.Name, err)
	}
	return nil
}

// Version returns the number of the last applied migration of a set, 0 for none.
func Version(ctx context.Context, db *sqldb.DB, s Set) (v int64, err error) {
	err = s.each(db, func(p *goose.Provider) error { v, err = p.GetDBVersion(ctx); return err })
	if err != nil {
		return 0, fmt.Errorf("migrate: %s: %w", s.Name, err)
	}
	return v, nil
}

func (s Set) each(db *sqldb.DB, fn func(*goose.Provider) error) (err error) {
	if s.Name == "" || s.FS == nil {
		return errors.New("a set needs Name and FS")
	}
	prefix, err := sqldb.Prefix(s.Prefix)
	if err != nil {
		return err
	}
	files, err := fs.Sub(s.FS, "migrations/"+string(db.Dialect()))
	if err != nil {
		return err
	}
	dialect := database.DialectSQLite3
	if db.Dialect() == sqldb.PostgreSQL {
		dialect = database.DialectPostgres
	}
	store, err := database.NewStore(dialect, prefix+"migrations_"+s.Name)
	if err != nil {
		return err
	}
	handle, release := open(db)
	defer func() { err = errors.Join(err, release()) }()
	p, err := goose.NewProvider("", handle, prefixed{files, prefix}, goose.WithStore(store))
	if err != nil {
		return err
	}
	return fn(p)
}

func open(db *sqldb.DB) (*sql.DB, func() error) {
	if pool := db.Pool(); pool != nil {
		handle := stdlib.OpenDBFromPool(pool)
		return handle, handle.Close
	}
	return db.SQL(), func() error { return nil }
}

// prefixed is a file system whose files speak of tables with another prefix.
type prefixed struct {
	fs.FS
	prefix string
}

func (p prefixed) Open(name string) (fs.File, error) {
	f, err := p.FS.Open(name)
	if err != nil || !strings.HasSuffix(name, ".sql") {
		return f, err
	}
	text, err := io.ReadAll(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &file{f, strings.NewReader(strings.ReplaceAll(string(text), sqldb.DefaultPrefix, p.prefix))}, nil
}

type file struct {
	fs.File
	text *strings.Reader
}

func (f *file) Read(b []byte) (int, error) { return f.text.Read(b) }
