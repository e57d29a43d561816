package sqldb

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Savepoint runs fn inside the transaction that ctx carries, and undoes what fn has done, and nothing else, when it
// returns an error: the transaction goes on as if fn had not run. What fn has registered with AfterCommit does not run
// then. Without a transaction the error is ErrNoTx.
func (db *DB) Savepoint(ctx context.Context, fn func(ctx context.Context) error) (err error) {
	q, err := db.Tx(ctx)
	if err != nil {
		return err
	}
	t := db.carried(ctx)
	t.mu.Lock()
	t.points++
	name := fmt.Sprintf("sillar_%d", t.points)
	doomed, after, undone := t.doomed, len(t.after), len(t.undone)
	t.mu.Unlock()
	if _, err := q.Exec(ctx, "SAVEPOINT "+name); err != nil {
		return err
	}
	err = errUnwound // by a panic or Goexit, after which what fn did cannot be separated from the rest
	defer func() {
		if errors.Is(err, errUnwound) {
			t.doom(err, false)
		}
	}()
	if err = fn(ctx); err == nil {
		if _, err = q.Exec(ctx, "RELEASE SAVEPOINT "+name); err != nil { // what fn did would be committed
			t.doom(err, false)
		}
		return err
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	_, rerr := q.Exec(ending, "ROLLBACK TO SAVEPOINT "+name)
	if rerr == nil {
		_, rerr = q.Exec(ending, "RELEASE SAVEPOINT "+name)
	}
	if rerr != nil {
		t.doom(rerr, false)
		return errors.Join(err, rerr)
	}
	t.mu.Lock()
	if !t.lost {
		t.doomed = doomed
	}
	t.after = t.after[:after]
	undo := slices.Clone(t.undone[undone:])
	t.undone = t.undone[:undone]
	t.mu.Unlock()
	for _, f := range undo {
		f()
	}
	return err
}
