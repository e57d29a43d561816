package sqlevents_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/eventstore"
	"github.com/sillar-go/sillar/repository/eventstore/sqlevents"
	"github.com/sillar-go/sillar/repository/sqldb"
)

// Appends to one stream beside many others never give up: with OnAppend, in transactions that begin with the append,
// and in those that have written before, whose id is older than that of others that wait for the stream.
func TestHotStreamsDoNotGiveUp(t *testing.T) {
	dsn := testenv.Postgres(t)
	db, plain := open(t, dsn, sqlevents.Config{})
	hooked := sqlevents.Must(sqlevents.New(db, sqlevents.Config{OnAppend: func(context.Context,
		[]eventstore.Recorded) error {
		return nil
	}}))
	if err := db.Exec(t.Context(), "CREATE TABLE noted (n int)"); err != nil {
		t.Fatal(err)
	}
	e := eventstore.Event{Type: "x"}
	const writers, each = 32, 12
	paths := []func() error{
		func() error { _, err := plain.Append(t.Context(), "a", eventstore.AnyVersion, e); return err },
		func() error { _, err := hooked.Append(t.Context(), "a", eventstore.AnyVersion, e); return err },
		func() error {
			return db.InTx(t.Context(), func(ctx context.Context) error {
				_, err := plain.Append(ctx, "a", eventstore.AnyVersion, e)
				return err
			})
		},
		func() error {
			return db.InTx(t.Context(), func(ctx context.Context) error {
				if _, err := db.Querier(ctx).Exec(ctx, "INSERT INTO noted VALUES (1)"); err != nil {
					return err
				}
				_, err := hooked.Append(ctx, "a", eventstore.AnyVersion, e)
				return err
			})
		},
	}
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for range each {
				if err := paths[w%len(paths)](); err != nil {
					t.Errorf("path %d: %v", w%len(paths), err)
				}
			}
		})
	}
	wg.Wait()
	n := int64(0)
	for r, err := range plain.LoadFrom(t.Context(), "a", 0) {
		if n++; err != nil || r.Version != n {
			t.Fatalf("version %d at place %d: %v", r.Version, n, err)
		}
	}
	if n != writers*each {
		t.Errorf("%d events, want %d", n, writers*each)
	}
}

// An append that waits for its stream has no transaction id yet, so that no append that gets the stream before it is
// younger.
func TestAppendsWaitWithoutATransactionID(t *testing.T) {
	db, plain := open(t, testenv.Postgres(t), sqlevents.Config{})
	hooked := sqlevents.Must(sqlevents.New(db, sqlevents.Config{OnAppend: func(context.Context,
		[]eventstore.Recorded) error {
		return nil
	}}))
	e := eventstore.Event{Type: "x"}
	var wg sync.WaitGroup
	if _, err := plain.Append(t.Context(), "a", eventstore.NoStream, e); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err := db.InTx(ctx, func(held context.Context) error {
		if _, err := plain.Append(held, "a", 1, e); err != nil {
			return err
		}
		for _, expected := range []int64{eventstore.AnyVersion, 2} {
			wg.Go(func() {
				if _, err := hooked.Append(ctx, "a", expected, e); err != nil && !errors.Is(err, repository.ErrConflict) {
					t.Error(err)
				}
			})
			wg.Go(func() {
				if err := db.InTx(ctx, func(ctx context.Context) error {
					_, err := plain.Append(ctx, "a", expected, e)
					return err
				}); err != nil && !errors.Is(err, repository.ErrConflict) {
					t.Error(err)
				}
			})
		}
		for {
			var waiting, ids int
			if err := db.Querier(held).QueryRow(held, `SELECT count(*), count(backend_xid) FROM pg_stat_activity
				WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&waiting, &ids); err != nil {
				return err
			}
			if waiting == 4 {
				if ids > 0 {
					t.Errorf("%d of 4 appends that wait have a transaction id", ids)
				}
				return nil
			}
			if _, err := db.Querier(held).Exec(held, "SELECT pg_stat_clear_snapshot(), pg_sleep(0.005)"); err != nil {
				return err
			}
		}
	})
	wg.Wait()
	if err != nil {
		t.Error(err)
	}
}

// A transaction that was overtaken on several streams, one after the other, has them locked in its next run before it
// has an id: no other append overtakes it there again. One that is overtaken on another stream each time ends in a
// typed error.
func TestOvertakenOnSeveralStreams(t *testing.T) {
	db, s := open(t, testenv.Postgres(t), sqlevents.Config{})
	e := eventstore.Event{Type: "x"}
	runs := 0
	err := db.InTx(t.Context(), func(ctx context.Context) error {
		runs++
		if _, err := db.Querier(ctx).Exec(ctx, "SELECT pg_current_xact_id()"); err != nil {
			return err
		}
		for i := range 3 {
			other, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			_, err := s.Append(other, fmt.Sprint(i), eventstore.AnyVersion, e) // waits where the stream is locked
			cancel()
			if err != nil && other.Err() == nil {
				return err
			}
			if _, err := s.Append(ctx, fmt.Sprint(i), eventstore.AnyVersion, e); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || runs != 4 {
		t.Errorf("%v after %d runs, want 4", err, runs)
	}

	runs = 0
	err = db.InTx(t.Context(), func(ctx context.Context) error {
		if _, err := db.Querier(ctx).Exec(ctx, "SELECT pg_current_xact_id()"); err != nil {
			return err
		}
		runs++
		stream := fmt.Sprint("new", runs)
		if _, err := s.Append(t.Context(), stream, eventstore.AnyVersion, e); err != nil {
			return err
		}
		_, err := s.Append(ctx, stream, eventstore.AnyVersion, e)
		return err
	})
	if !errors.Is(err, sqldb.ErrContention) || !errors.Is(err, sqlevents.ErrOvertaken) || runs != 10 {
		t.Errorf("overtaken each time: %v after %d runs", err, runs)
	}
}

// In a transaction of the caller's own, which InTx does not run again, the error says what has happened.
func TestOvertakenInCallersTransaction(t *testing.T) {
	dsn := testenv.Postgres(t)
	_, first := open(t, dsn, sqlevents.Config{})
	pool, err := pgxpool.New(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	db := sqldb.Must(sqldb.FromPool(pool, sqldb.Config{}))
	s := sqlevents.Must(sqlevents.New(db, sqlevents.Config{Coalesce: -1}))
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(t.Context()) }()
	if _, err := tx.Exec(t.Context(), "SELECT pg_current_xact_id()"); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Append(t.Context(), "a", eventstore.AnyVersion, eventstore.Event{Type: "x"}); err != nil {
		t.Fatal(err)
	}
	_, err = s.Append(db.WithPgxTx(t.Context(), tx), "a", eventstore.AnyVersion, eventstore.Event{Type: "x"})
	if !errors.Is(err, sqlevents.ErrOvertaken) {
		t.Errorf("%v, want ErrOvertaken", err)
	}
}
