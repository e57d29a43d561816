// Package barrier is the participant's side of a saga: it applies each action and each compensation once, in whatever
// order and however often they arrive.
//
//	b, err := barrier.New(db, barrier.Config{})
//	...
//	err = db.InTx(ctx, func(ctx context.Context) error {
//		return b.Do(ctx, key, func(ctx context.Context) error { return reserve(ctx, order) }) // key is saga.Call.Key
//	})
//
// # Guarantees
//
//   - A key that has been applied is a no-op: fn does not run.
//   - A compensation (key .../undo) of an action that never ran is a no-op. The action, should it arrive later, is
//     refused with ErrTooLate.
//   - The mark and what fn does are one transaction, which must be in ctx: else sqldb.ErrNoTx.
//
// Marks stay until Prune.
//
// The technique is known from DTM as the sub-transaction barrier (https://en.dtm.pub/practice/barrier.html).
package barrier

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sillar-go/sillar/repository/sqldb"
)

// Migrations makes the table sillar_barrier.
//
//go:embed migrations
var Migrations embed.FS

// Errors of this package, to be compared with errors.Is.
var (
	// ErrTooLate says that the action's compensation has already come: the action must not happen any more.
	ErrTooLate = errors.New("barrier: the compensation came before the action")
	// ErrKey says that a key does not end with /do or /undo.
	ErrKey = errors.New("barrier: not the key of a saga step")
)

// Config tunes a Barrier.
type Config struct {
	// Prefix begins the table's name. Empty means sqldb.DefaultPrefix.
	Prefix string
}

// Barrier keeps the marks. It is safe for concurrent use.
type Barrier struct {
	db             *sqldb.DB
	prefix, insert string
}

// New returns a barrier in db, whose table must exist: see EnsureSchema and package migrate.
func New(db *sqldb.DB, cfg Config) (*Barrier, error) {
	if db == nil {
		return nil, errors.New("barrier: New needs a database")
	}
	prefix, err := sqldb.Prefix(cfg.Prefix)
	if err != nil {
		return nil, err
	}
	return &Barrier{
		db,
		prefix,
		"INSERT INTO " + prefix + "barrier (step, op, set_by, created_at) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
	}, nil
}

// Must returns v or panics with err.
func Must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// EnsureSchema makes the table where it does not exist.
func (b *Barrier) EnsureSchema(ctx context.Context) error {
	return b.db.EnsureSchema(ctx, Migrations, b.prefix)
}

// Do runs fn unless the key has been applied before, inside the transaction that ctx carries. See the package for what
// it returns. Two transactions with one key wait for each other.
func (b *Barrier) Do(ctx context.Context, key string, fn func(ctx context.Context) error) error {
	step, op, err := parse(key)
	if err != nil {
		return err
	}
	q, err := b.db.Tx(ctx)
	if err != nil {
		return err
	}
	mark := func(op, by string) (bool, error) {
		n, err := q.Exec(ctx, b.insert, step, op, by, time.Now().UnixMicro())
		if err != nil {
			return false, fmt.Errorf("barrier: mark %s: %w", key, err)
		}
		return n == 1, nil
	}
	if op == "undo" {
		never, err := mark("do", "undo") // refuses a later action, and reports whether the action had come
		if err != nil {
			return err
		}
		first, err := mark("undo", "undo")
		if err != nil || never || !first {
			return err
		}
		return fn(ctx)
	}
	first, err := mark("do", "do")
	if err != nil {
		return err
	}
	if !first {
		var by string
		err := q.QueryRow(ctx, "SELECT set_by FROM "+b.prefix+"barrier WHERE step = $1 AND op = 'do'", step).Scan(&by)
		if err != nil {
			return fmt.Errorf("barrier: look at %s: %w", key, err)
		}
		if by == "undo" {
			return fmt.Errorf("%w: %s", ErrTooLate, key)
		}
		return nil
	}
	return fn(ctx)
}

func parse(key string) (step, op string, err error) {
	i := strings.LastIndexByte(key, '/')
	if i <= 0 || len(key) > 400 {
		return "", "", fmt.Errorf("%w: %q", ErrKey, key[:min(len(key), 64)])
	}
	step, op = key[:i], key[i+1:]
	if op != "do" && op != "undo" {
		return "", "", fmt.Errorf("%w: %q", ErrKey, key[:min(len(key), 64)])
	}
	return step, op, nil
}
