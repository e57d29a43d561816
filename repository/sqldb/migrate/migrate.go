// Package migrate brings the tables of the library's packages up to date with goose, recorded in a version table for
// each package, so that packages of different age live in one database.
//
//	err := migrate.Up(ctx, db, migrate.Set{Name: "outbox", FS: sqloutbox.Migrations})
//
// It works on databases that sqldb opened. It alone imports goose; programs with migration tools of their own Print the
// SQL, or take it from sqldb.SchemaSQL, which links no goose.
package migrate

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
	"github.com/pressly/goose/v3/lock"

	"github.com/sillar-go/sillar/repository/sqldb"
)

// Set is the migrations of one package.
type Set struct {
	// Name distinguishes the sets of one database: the version table is <prefix>migrations_<Name>. Required.
	Name string
	// FS is the package's Migrations. Required.
	FS fs.FS
	// Prefix begins the tables' names. Empty means sqldb.DefaultPrefix.
	Prefix string
}

var validName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,30}$`)

// Up applies what is missing of each set, in order, each migration in a transaction of its own. It stops at the
// first error. Processes that start together wait for each other on PostgreSQL, where it takes two connections.
func Up(ctx context.Context, db *sqldb.DB, sets ...Set) error {
	for _, s := range sets {
		if err := s.each(ctx, db, func(p *goose.Provider) error { _, err := p.Up(ctx); return err }); err != nil {
			return fmt.Errorf("migrate: %s: %w", s.Name, err)
		}
	}
	return nil
}

// Down takes back the last applied migration of a set.
func Down(ctx context.Context, db *sqldb.DB, s Set) error {
	if err := s.each(ctx, db, func(p *goose.Provider) error { _, err := p.Down(ctx); return err }); err != nil {
		return fmt.Errorf("migrate: %s: %w", s.Name, err)
	}
	return nil
}

// Version returns the number of the last applied migration of a set, 0 for none.
func Version(ctx context.Context, db *sqldb.DB, s Set) (v int64, err error) {
	err = s.each(ctx, db, func(p *goose.Provider) error { v, err = p.GetDBVersion(ctx); return err })
	if err != nil {
		return 0, fmt.Errorf("migrate: %s: %w", s.Name, err)
	}
	return v, nil
}

// Print writes the SQL of the sets, for people and for migration tools of a program's own.
func Print(w io.Writer, dialect sqldb.Dialect, sets ...Set) error {
	for _, s := range sets {
		if !validName.MatchString(s.Name) || s.FS == nil { // the name becomes a comment
			return fmt.Errorf("migrate: a set needs FS, and a Name that matches %s", validName)
		}
		script, err := sqldb.SchemaSQL(s.FS, dialect, s.Prefix)
		if err == nil {
			_, err = fmt.Fprintf(w, "-- %s\n%s\n", s.Name, script)
		}
		if err != nil {
			return fmt.Errorf("migrate: print %s: %w", s.Name, err)
		}
	}
	return nil
}

func (s Set) each(ctx context.Context, db *sqldb.DB, fn func(*goose.Provider) error) (err error) {
	if !validName.MatchString(s.Name) || s.FS == nil {
		return fmt.Errorf("a set needs FS, and a Name that matches %s", validName)
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
	if db.Dialect() != sqldb.PostgreSQL { // on SQLite there is one writer anyway
		return fn(p)
	}
	// A lock of a transaction, not of a session: behind a pooler there are no sessions. The migrations have
	// transactions of their own. A waiting process holds no transaction: waiting processes could use up the pooler's
	// connections, and the one that migrates needs a second one.
	ctx = db.WithoutTx(ctx)
	for deadline := time.Now().Add(maxWait); ; {
		err := locked(ctx, db, func() error { return fn(p) })
		if !errors.Is(err, errTaken) {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("others have been migrating for %v", maxWait)
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("wait for others that migrate: %w", context.Cause(ctx))
		}
	}
}

// maxWait bounds the wait for other processes that migrate.
const maxWait = 5 * time.Minute

var errTaken = errors.New("another process migrates")

// locked runs fn while no other process does, or returns errTaken.
func locked(ctx context.Context, db *sqldb.DB, fn func() error) error {
	return db.InTx(ctx, func(ctx context.Context) error {
		q := db.Querier(ctx)
		if _, err := q.Exec(ctx, "SET LOCAL idle_in_transaction_session_timeout = 0"); err != nil {
			return err
		}
		var ours bool
		if err := q.QueryRow(ctx, "SELECT pg_try_advisory_xact_lock($1)", lock.DefaultLockID).Scan(&ours); err != nil {
			return err
		}
		if !ours {
			return errTaken
		}
		return fn()
	})
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
