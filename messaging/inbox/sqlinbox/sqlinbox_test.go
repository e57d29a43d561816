package sqlinbox_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/inbox/sqlinbox"
	"github.com/sillar-go/sillar/messaging/memory"
	"github.com/sillar-go/sillar/repository/sqldb"
	_ "github.com/sillar-go/sillar/repository/sqldb/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errBoom = errors.New("boom")

// each runs a test on both dialects, with a table of effects.
func each(t *testing.T, test func(t *testing.T, db *sqldb.DB, effects func() int)) {
	t.Helper()
	for name, dsn := range testenv.SQL() {
		t.Run(name, func(t *testing.T) {
			db, err := sqldb.Open(t.Context(), dsn(t), sqldb.Config{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = db.Close() })
			if err := db.Exec(t.Context(), "CREATE TABLE effects (id TEXT NOT NULL)"); err != nil {
				t.Fatal(err)
			}
			test(t, db, func() (n int) {
				if err := db.Querier(t.Context()).QueryRow(t.Context(), "SELECT count(*) FROM effects").Scan(&n); err != nil {
					t.Fatal(err)
				}
				return n
			})
		})
	}
}

func inbox(t *testing.T, db *sqldb.DB, cfg sqlinbox.Config) *sqlinbox.Inbox {
	t.Helper()
	i := sqlinbox.Must(sqlinbox.New(db, cfg))
	if err := i.EnsureSchema(t.Context()); err != nil {
		t.Fatal(err)
	}
	return i
}

func effect(db *sqldb.DB, id string, then error) func(context.Context) error {
	return func(ctx context.Context) error {
		tx, err := db.Tx(ctx)
		if err == nil {
			_, err = tx.Exec(ctx, "INSERT INTO effects VALUES ($1)", id)
		}
		return errors.Join(err, then)
	}
}

func TestOnceRunsOncePerMessage(t *testing.T) {
	each(t, func(t *testing.T, db *sqldb.DB, effects func() int) {
		i := inbox(t, db, sqlinbox.Config{})
		for step, c := range []struct {
			consumer string
			then     error
			dup      bool
			effects  int
		}{
			{"a", errBoom, false, 0}, // a failure leaves nothing
			{"a", nil, false, 1},
			{"a", nil, true, 1},
			{"a", errBoom, true, 1}, // is not run
			{"b", nil, false, 2},    // another consumer
		} {
			dup, err := i.Once(t.Context(), c.consumer, "m", effect(db, "m", c.then))
			if dup != c.dup || (err != nil) != (c.then != nil && !c.dup) || effects() != c.effects {
				t.Fatalf("step %d: duplicate %v, error %v, %d effects", step, dup, err, effects())
			}
		}
		func() { // a panic leaves nothing either
			defer func() { _ = recover() }()
			_, _ = i.Once(t.Context(), "p", "m", func(context.Context) error { panic("ouch") })
		}()
		if dup, err := i.Once(t.Context(), "p", "m", effect(db, "m", nil)); dup || err != nil {
			t.Fatalf("after a panic: %v, %v", dup, err)
		}
	})
}

// Many deliveries of few messages at once, the first run of each failing: one effect each.
func TestConcurrentDeliveriesApplyOnce(t *testing.T) {
	each(t, func(t *testing.T, db *sqldb.DB, effects func() int) {
		i := inbox(t, db, sqlinbox.Config{})
		var wg sync.WaitGroup
		var failed [5]atomic.Bool
		for n := range 40 {
			wg.Go(func() {
				id := n % 5
				for {
					var then error
					if failed[id].CompareAndSwap(false, true) {
						then = errBoom
					}
					_, err := i.Once(t.Context(), "c", fmt.Sprint(id), effect(db, fmt.Sprint(id), then))
					if err == nil {
						return
					}
					if !errors.Is(err, errBoom) {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		if effects() != 5 {
			t.Fatalf("%d effects, want 5", effects())
		}
	})
}

func TestPurgeRemovesOldNotes(t *testing.T) {
	nothing := func(context.Context) error { return nil }
	// Once purges, too; inside a transaction after that, for which it does not wait.
	for name, once := range map[string]func(ctx context.Context, db *sqldb.DB, i *sqlinbox.Inbox) (bool, error){
		"by itself": func(ctx context.Context, _ *sqldb.DB, i *sqlinbox.Inbox) (bool, error) {
			return i.Once(ctx, "c", "new", nothing)
		},
		"inside a transaction": func(ctx context.Context, db *sqldb.DB, i *sqlinbox.Inbox) (dup bool, err error) {
			err = db.InTx(ctx, func(ctx context.Context) error {
				dup, err = i.Once(ctx, "c", "new", nothing)
				return err
			})
			return dup, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, db *sqldb.DB, _ func() int) {
				var warned bytes.Buffer
				i := inbox(t, db, sqlinbox.Config{Keep: time.Hour, Logger: slog.New(slog.NewTextHandler(&warned, nil))})
				old := time.Now().Add(-2 * time.Hour).UnixMicro()
				for n := range 3 {
					if _, err := db.Querier(t.Context()).Exec(t.Context(), "INSERT INTO sillar_inbox VALUES ('c', $1, $2)",
						fmt.Sprint("old", n), old); err != nil {
						t.Fatal(err)
					}
				}
				if dup, err := once(t.Context(), db, i); dup || err != nil || warned.Len() > 0 {
					t.Fatal(dup, err, warned.String())
				}
				if n, err := i.Purge(t.Context()); n != 0 || err != nil {
					t.Fatalf("%d left to purge, %v", n, err)
				}
				if dup, err := i.Once(t.Context(), "c", "new", nothing); !dup || err != nil {
					t.Fatalf("a new note was purged: %v", err)
				}
				if dup, err := i.Once(t.Context(), "c", "old0", nothing); dup || err != nil {
					t.Fatalf("an old note is still there: %v", err)
				}
			})
		})
	}
}

// What is more than one purge removes is not left for ten minutes, in which more may come than that: the next ones
// follow a second apart, until nothing is left.
func TestPurgeKeepsUp(t *testing.T) {
	each(t, func(t *testing.T, db *sqldb.DB, _ func() int) {
		i := inbox(t, db, sqlinbox.Config{Keep: time.Hour})
		if _, err := db.Querier(t.Context()).Exec(t.Context(),
			`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 25000)
			INSERT INTO sillar_inbox SELECT 'old', CAST(i AS TEXT), 1 FROM n`); err != nil {
			t.Fatal(err)
		}
		left := func() (n int) {
			t.Helper()
			if err := db.Querier(t.Context()).QueryRow(t.Context(),
				"SELECT count(*) FROM sillar_inbox WHERE consumer = 'old'").Scan(&n); err != nil {
				t.Fatal(err)
			}
			return n
		}
		for n, end := 0, time.Now().Add(30*time.Second); left() > 0; n++ {
			if time.Now().After(end) {
				t.Fatalf("%d are left", left())
			}
			before := left()
			if _, err := i.Once(t.Context(), "c", fmt.Sprint(n), func(context.Context) error { return nil }); err != nil {
				t.Fatal(err)
			}
			if removed := before - left(); removed > 10_000 {
				t.Errorf("one message waited for the removal of %d notes", removed)
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
}

// Together with a router: a message that comes twice has one effect.
func TestInboxWithRouterAppliesOnce(t *testing.T) {
	each(t, func(t *testing.T, db *sqldb.DB, effects func() int) {
		b := memory.Must(memory.New(memory.Config{Source: "test"}))
		defer b.Close()
		s, err := b.Subscribe(t.Context(), messaging.Subscription{Group: "g", Patterns: []string{"a"}})
		if err != nil || s.Close() != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := b.Publish(t.Context(), "a", 1, messaging.WithID("m")); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.Publish(t.Context(), "a", 1, messaging.WithID("last")); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
		defer stop()
		r := messaging.Must(messaging.NewRouter(b, messaging.RouterConfig{}))
		g := r.Group("g", messaging.GroupConfig{Dedup: inbox(t, db, sqlinbox.Config{})})
		messaging.HandleRaw(g, "a", func(ctx context.Context, m messaging.Message[[]byte]) error {
			if m.ID == "last" {
				stop()
			}
			return effect(db, m.ID, nil)(ctx)
		})
		if err := r.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if effects() != 2 {
			t.Fatalf("%d effects, want 2", effects())
		}
	})
}
