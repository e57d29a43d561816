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
//   - A key that has been applied is a no-op: fn does not run. Result returns what fn returned when it was applied.
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
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sillar-go/sillar/repository/sqldb"
)

// Migrations makes the tables sillar_barrier and sillar_barrier_results.
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

// Result is Barrier.Do for a function that returns a value, such as the id of what it made: the value is kept, as JSON,
// and a key that has been applied before returns it again. The value of a compensation that had nothing to undo is the
// zero R.
func Result[R any](ctx context.Context, b *Barrier, key string,
	fn func(ctx context.Context) (R, error)) (r R, err error) {
	ran := false
	err = b.Do(ctx, key, func(ctx context.Context) error {
		ran = true
		var err error
		if r, err = fn(ctx); err != nil {
			return err
		}
		return b.keep(ctx, key, r)
	})
	if err == nil && !ran {
		err = b.kept(ctx, key, &r)
	}
	return r, err
}

// keep stores the result of a key in the transaction of ctx.
func (b *Barrier) keep(ctx context.Context, key string, r any) error {
	step, op, err := parse(key)
	if err != nil {
		return err
	}
	raw, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("barrier: encode the result of %s: %w", key, err)
	}
	query := "INSERT INTO " + b.prefix + "barrier_results (step, op, result, created_at) VALUES ($1, $2, $3, $4)"
	if _, err := b.db.Querier(ctx).Exec(ctx, query, step, op, string(raw), time.Now().UnixMicro()); err != nil {
		return fmt.Errorf("barrier: keep the result of %s: %w", key, err)
	}
	return nil
}

// kept reads the result of a key that was applied before. There is none where a compensation had nothing to undo, or
// where the key was applied by Do.
func (b *Barrier) kept(ctx context.Context, key string, into any) error {
	step, op, err := parse(key)
	if err != nil {
		return err
	}
	var raw string
	query := "SELECT COALESCE((SELECT result FROM " + b.prefix + "barrier_results WHERE step = $1 AND op = $2), '')"
	if err := b.db.Querier(ctx).QueryRow(ctx, query, step, op).Scan(&raw); err != nil {
		return fmt.Errorf("barrier: read the result of %s: %w", key, err)
	}
	if raw == "" {
		return nil
	}
	if err := json.Unmarshal([]byte(raw), into); err != nil {
		return fmt.Errorf("barrier: decode the result of %s: %w", key, err)
	}
	return nil
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
