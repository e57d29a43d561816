package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Errors of this package, to be compared with errors.Is.
var (
	// ErrNoTx is returned where a transaction is required and the context carries none of this database.
	ErrNoTx = errors.New("sqldb: the context carries no transaction of this database")
	// ErrTxDone is returned when the context's transaction has already been committed or rolled back.
	ErrTxDone = errors.New("sqldb: the context's transaction has ended")
	// ErrDoomed is returned by the outermost InTx, with the cause, when something in the transaction failed and the error
	// was swallowed: a nested InTx, or on SQLite a statement after which SQLite itself may have rolled back, such as one
	// that was interrupted or met a full disk. Nothing was committed. In the latter case further statements return it too.
	ErrDoomed = errors.New("sqldb: an error was swallowed after which the transaction can only be rolled back")
	// ErrContention is returned by InTx, with the cause, when the transaction lost against others Config.MaxAttempts
	// times.
	ErrContention = errors.New("sqldb: the transaction lost against others")
	// ErrBusy is returned when SQLite's writer, or a connection of PostgreSQL's pool, could not be had within
	// Config.BusyTimeout.
	ErrBusy = errors.New("sqldb: the writer or the pool is busy")
	// ErrNoRows is returned by Row.Scan when there is no row.
	ErrNoRows = errors.New("sqldb: no rows")
	// ErrDSN is returned by Open for a DSN that it does not understand.
	ErrDSN = errors.New("sqldb: unusable DSN")
)

// UniqueViolation reports whether err says that a unique constraint was violated, which one, and on which columns. The
// columns are known on SQLite, the constraint's name on PostgreSQL; there the columns are read from the detail.
func UniqueViolation(err error) (constraint string, columns []string, ok bool) {
	if state := SQLState(err); state != "" {
		if state != "23505" {
			return "", nil, false
		}
		var pg *pgconn.PgError
		if errors.As(err, &pg) {
			return pg.ConstraintName, detailColumns(pg.Detail), true
		}
		var pq interface{ Get(field byte) string } // of lib/pq, by the letters of the protocol
		if errors.As(err, &pq) {
			return pq.Get('n'), detailColumns(pq.Get('D')), true
		}
		return "", nil, true
	}
	var coded interface{ Code() int }
	if errors.As(err, &coded) {
		switch coded.Code() {
		case 2067, 1555: // SQLITE_CONSTRAINT_UNIQUE, SQLITE_CONSTRAINT_PRIMARYKEY
			columns = sqliteColumns(err.Error())
			return strings.Join(columns, "_"), columns, true
		}
	}
	return "", nil, false
}

// Unstorable reports whether err says that PostgreSQL cannot hold a text: one with NUL, or that is no UTF-8. SQLite
// holds any.
func Unstorable(err error) bool {
	state := SQLState(err)
	return state == "22021" || state == "22P05"
}

// SQLState returns the code of an error of PostgreSQL's, such as 23505, or "". It knows the errors of every driver that
// have a method SQLState() string: pgx and lib/pq among them.
func SQLState(err error) string {
	var pg interface{ SQLState() string }
	if errors.As(err, &pg) {
		return pg.SQLState()
	}
	return ""
}

// detailColumns reads `Key (a, b)=(1, 2) already exists.`
func detailColumns(detail string) []string {
	_, rest, ok := strings.Cut(detail, "Key (")
	if !ok {
		return nil
	}
	list, _, ok := strings.Cut(rest, ")=(")
	if !ok {
		return nil
	}
	cols := strings.Split(list, ", ")
	for i, c := range cols {
		cols[i] = strings.Trim(c, `"`)
	}
	return cols
}

// sqliteColumns reads `constraint failed: UNIQUE constraint failed: t.a, t.b (2067)`.
func sqliteColumns(msg string) []string {
	i := strings.LastIndex(msg, "constraint failed: ")
	if i < 0 {
		return nil
	}
	list := msg[i+len("constraint failed: "):]
	if j := strings.LastIndex(list, " ("); j >= 0 {
		list = list[:j]
	}
	cols := strings.Split(list, ", ")
	for i, c := range cols {
		if _, col, ok := strings.Cut(c, "."); ok {
			cols[i] = col
		}
	}
	return cols
}

// Retryable reports whether err says that the transaction lost against another one and may be run again:
// serialization failure (40001), deadlock (40P01), SQLITE_BUSY, SQLITE_LOCKED, or an error that says so by a method
// Retryable() bool. Where such an error has a method Lock() (name string, take func(context.Context) error), InTx calls
// take at the beginning of each further run, those of several locks in the order of their names.
func Retryable(err error) bool {
	var own interface{ Retryable() bool }
	if errors.As(err, &own) {
		return own.Retryable()
	}
	if state := SQLState(err); state != "" {
		return state == "40001" || state == "40P01"
	}
	return isBusy(err)
}

// isBusy reports SQLITE_BUSY and SQLITE_LOCKED.
func isBusy(err error) bool {
	var coded interface{ Code() int }
	if errors.As(err, &coded) {
		c := coded.Code() & 0xff
		return c == 5 || c == 6
	}
	return false
}

// rollsBack reports whether SQLite may have ended the transaction by itself after an error of a statement; see
// "Response To Errors Within A Transaction" in https://sqlite.org/lang_transaction.html.
func rollsBack(err error) bool {
	// how the driver reports SQLITE_INTERRUPT
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	var coded interface{ Code() int }
	if !errors.As(err, &coded) {
		return false
	}
	switch coded.Code() & 0xff {
	case 5, 7, 9, 10, 13: // SQLITE_BUSY, NOMEM, INTERRUPT, IOERR, FULL
		return true
	}
	return false
}

// wrap gives driver errors of common meaning the names of this package. The driver's error stays reachable.
func wrap(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, pgx.ErrNoRows), errors.Is(err, sql.ErrNoRows):
		return ErrNoRows
	case errors.Is(err, pgx.ErrTxClosed), errors.Is(err, sql.ErrTxDone):
		return fmt.Errorf("%w: %w", ErrTxDone, err)
	}
	if state := SQLState(err); state == "42P05" || state == "26000" { // a prepared statement is there, or is not
		return fmt.Errorf("%w (behind a pooler in transaction mode set default_query_exec_mode=cache_describe)", err)
	}
	return err
}
