package eventstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/sillar-go/sillar/internal/killtest"
	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/repository/eventstore"
	"github.com/sillar-go/sillar/repository/eventstore/sqlevents"
	"github.com/sillar-go/sillar/repository/sqldb"
	_ "github.com/sillar-go/sillar/repository/sqldb/sqlite"
)

// A projection fails half-way: neither its read model nor its checkpoint has moved, and the next run applies all.
func TestFailedProjectionMovesNothing(t *testing.T) {
	db := sqldb.Must(sqldb.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "p.db"),
		sqldb.Config{Synchronous: "NORMAL"}))
	defer db.Close()
	s := sqlevents.Must(sqlevents.New(db, sqlevents.Config{}))
	if err := errors.Join(s.EnsureSchema(t.Context()),
		db.Exec(t.Context(), "CREATE TABLE totals (stream TEXT PRIMARY KEY, cents INTEGER NOT NULL)")); err != nil {
		t.Fatal(err)
	}
	a := accounts(t, s, eventstore.AggregateConfig{})
	for range 5 {
		if _, err := a.Handle(t.Context(), "1", deposit(10)); err != nil {
			t.Fatal(err)
		}
	}
	boom, broken := errors.New("boom"), true
	p, err := eventstore.NewProjector(s, db, func(ctx context.Context, r eventstore.Recorded) error {
		if broken && r.Version == 4 {
			return boom
		}
		e, err := a.Decode(r)
		if err != nil {
			return err
		}
		_, err = db.Querier(ctx).Exec(ctx,
			`INSERT INTO totals VALUES ($1, $2) ON CONFLICT (stream) DO UPDATE SET cents = totals.cents + excluded.cents`,
			r.Stream, e.(deposited).Cents)
		return err
	}, eventstore.ProjectorConfig{Name: "totals", Batch: 3})
	if err != nil {
		t.Fatal(err)
	}
	total := func() (n int64) {
		_ = db.Querier(t.Context()).QueryRow(t.Context(), "SELECT coalesce(sum(cents), 0) FROM totals").Scan(&n)
		return n
	}
	for _, step := range []struct {
		err   error
		n     int
		total int64
		lag   int64
	}{{nil, 3, 30, 2}, {boom, 0, 30, 2}, {nil, 2, 50, 0}, {nil, 0, 50, 0}} {
		n, err := p.Step(t.Context())
		if !errors.Is(err, step.err) || n != step.n || total() != step.total {
			t.Errorf("step: %d events, %v, total %d; want %+v", n, err, total(), step)
		}
		if lag, err := p.Lag(t.Context()); err != nil || lag != step.lag {
			t.Errorf("lag %d, %v, want %d", lag, err, step.lag)
		}
		if err != nil {
			broken = false
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- p.Run(ctx) }()
	if _, err := a.Handle(t.Context(), "1", deposit(7)); err != nil {
		t.Fatal(err)
	}
	for lag := int64(1); lag > 0; lag, _ = p.Lag(t.Context()) {
		s.Wait(t.Context())
	}
	stop()
	if err := <-done; err != nil || total() != 57 {
		t.Errorf("Run: %v, total %d", err, total())
	}
}

// open opens a store with two read models, and which of them serves.
func open(ctx context.Context, dsn string, cfg sqlevents.Config) (*sqldb.DB, *sqlevents.Store, error) {
	db, err := sqldb.Open(ctx, dsn, sqldb.Config{Synchronous: "NORMAL", MaxConns: 8})
	if err != nil {
		return nil, nil, err
	}
	s, err := sqlevents.New(db, cfg)
	if err == nil {
		err = s.EnsureSchema(ctx)
	}
	if err == nil {
		err = db.Exec(ctx,
			`CREATE TABLE IF NOT EXISTS totals (model TEXT NOT NULL, stream TEXT NOT NULL, cents BIGINT NOT NULL,
				PRIMARY KEY (model, stream));
			CREATE TABLE IF NOT EXISTS serving (one INTEGER PRIMARY KEY, model TEXT NOT NULL);`)
	}
	return db, s, err
}

// projector sums up the streams' deposits in a read model.
func projector(db *sqldb.DB, s eventstore.Store, model string,
	applied func(eventstore.Recorded)) (*eventstore.Projector, error) {
	return eventstore.NewProjector(s, db, func(ctx context.Context, r eventstore.Recorded) error {
		_, err := db.Querier(ctx).Exec(ctx,
			`INSERT INTO totals VALUES ($1, $2, 1) ON CONFLICT (model, stream) DO UPDATE SET cents = totals.cents + 1`, model,
			r.Stream)
		applied(r)
		return err
	}, eventstore.ProjectorConfig{Name: model, Batch: 10})
}

// Several replicas of one projector take turns, and in normal operation report nothing: the one that was slower learns
// it from the checkpoint, not from rows that are there already.
func TestReplicasTakeTurns(t *testing.T) {
	for name, dsn := range testenv.SQL() {
		t.Run(name, func(t *testing.T) {
			db, s, err := open(t.Context(), dsn(t), sqlevents.Config{})
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			if err := db.Exec(t.Context(), "CREATE TABLE seen (id TEXT PRIMARY KEY)"); err != nil {
				t.Fatal(err)
			}
			var logs bytes.Buffer
			ctx, stop := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			defer wg.Wait()
			defer stop()
			var replicas []*eventstore.Projector
			for range 3 {
				p, err := eventstore.NewProjector(s, db, func(ctx context.Context, r eventstore.Recorded) error {
					_, err := db.Querier(ctx).Exec(ctx, "INSERT INTO seen VALUES ($1)", r.ID)
					return err
				}, eventstore.ProjectorConfig{Name: "seen", Batch: 5, Logger: slog.New(slog.NewTextHandler(&logs, nil))})
				if err != nil {
					t.Fatal(err)
				}
				replicas = append(replicas, p)
				wg.Go(func() { _ = p.Run(ctx) })
			}
			const total = 200
			for i := range total {
				if _, err := s.Append(t.Context(), fmt.Sprint("s", i%7), eventstore.AnyVersion,
					eventstore.Event{Type: "x"}); err != nil {
					t.Fatal(err)
				}
			}
			n := 0
			for end := time.Now().Add(30 * time.Second); n < total && time.Now().Before(end); s.Wait(ctx) {
				if err := db.Querier(ctx).QueryRow(ctx, "SELECT count(*) FROM seen").Scan(&n); err != nil {
					t.Fatal(err)
				}
			}
			lag, err := replicas[0].Lag(ctx)
			stop()
			wg.Wait()
			if n != total || lag != 0 || err != nil || logs.Len() > 0 {
				t.Errorf("%d of %d events, lag %d, %v, log:\n%s", n, total, lag, err, logs.String())
			}
		})
	}
}

func init() {
	killtest.Register("projector", func(args []string) error {
		ctx := context.Background()
		stop, err := strconv.ParseInt(args[1], 10, 64)
		if err != nil {
			return err
		}
		db, s, err := open(ctx, args[0], sqlevents.Config{})
		if err != nil {
			return err
		}
		p, err := projector(db, s, "totals", func(r eventstore.Recorded) {
			if r.Version == stop {
				fmt.Println("between") // the read model is written, the checkpoint is not
				select {}
			}
		})
		if err != nil {
			return err
		}
		return p.Run(ctx)
	})
}

// A projector is killed between its read model and its checkpoint, again and again: every event counts once.
func TestProjectorKilled(t *testing.T) {
	const events = 60
	for name, dsn := range testenv.SQL() {
		t.Run(name, func(t *testing.T) {
			url := dsn(t)
			db, s, err := open(t.Context(), url, sqlevents.Config{})
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			for range events {
				if _, err := s.Append(t.Context(), "a", eventstore.AnyVersion, eventstore.Event{Type: "x"}); err != nil {
					t.Fatal(err)
				}
			}
			for n := int64(0); n < events; time.Sleep(time.Millisecond) { // other databases' transactions hold readers up
				if n, err = s.Lag(t.Context(), ""); err != nil {
					t.Fatal(err)
				}
			}
			p, err := projector(db, s, "totals", func(eventstore.Recorded) {})
			if err != nil {
				t.Fatal(err)
			}
			total := func() (n int64) {
				if err := db.Querier(t.Context()).QueryRow(t.Context(),
					"SELECT coalesce(sum(cents), 0) FROM totals").Scan(&n); err != nil {
					t.Error(err)
				}
				return n
			}
			for _, stop := range []string{"5", "25", "60"} {
				k := killtest.Start(t, "projector", url, stop)
				k.Line(t, "between")
				k.Kill()
				lag, err := p.Lag(t.Context())
				if n := total(); err != nil || n != events-lag {
					t.Fatalf("killed at version %s: %d events in the read model, %d before the checkpoint (%v)", stop, n, events-lag,
						err)
				}
			}
			k := killtest.Start(t, "projector", url, "0")
			for lag := int64(1); lag > 0; time.Sleep(5 * time.Millisecond) {
				if lag, err = p.Lag(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			k.Kill()
			if n := total(); n != events {
				t.Errorf("%d events in the read model, want %d", n, events)
			}
		})
	}
}

// plain runs functions outside of transactions.
type plain struct{}

func (plain) InTx(ctx context.Context, fn func(context.Context) error) error { return fn(ctx) }

func ExampleProjector() {
	ctx := context.Background()
	db := sqldb.Must(sqldb.Open(ctx, "sqlite::memory:", sqldb.Config{}))
	defer db.Close()
	store := sqlevents.Must(sqlevents.New(db, sqlevents.Config{}))
	err := errors.Join(store.EnsureSchema(ctx), db.Exec(ctx,
		"CREATE TABLE streams (name TEXT PRIMARY KEY, events INTEGER NOT NULL)"))
	for _, stream := range []string{"a", "b", "a"} {
		_, aerr := store.Append(ctx, stream, eventstore.AnyVersion, eventstore.Event{Type: "counted"})
		err = errors.Join(err, aerr)
	}
	counts, perr := eventstore.NewProjector(store, db, func(ctx context.Context, e eventstore.Recorded) error {
		_, err := db.Querier(ctx).Exec(ctx,
			"INSERT INTO streams VALUES ($1, 1) ON CONFLICT (name) DO UPDATE SET events = events + 1", e.Stream)
		return err
	}, eventstore.ProjectorConfig{Name: "counts"})
	if err = errors.Join(err, perr); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(counts.Step(ctx)) // a program calls Run, which goes on
	var events int
	fmt.Println(db.Querier(ctx).QueryRow(ctx, "SELECT events FROM streams WHERE name = 'a'").Scan(&events), events)
	fmt.Println(counts.Lag(ctx))
	// Output:
	// 3 <nil>
	// <nil> 2
	// 0 <nil>
}
