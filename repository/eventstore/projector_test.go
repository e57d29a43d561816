package eventstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sillar-go/sillar/internal/killtest"
	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/repository/eventstore"
	"github.com/sillar-go/sillar/repository/eventstore/memevents"
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

// A read model is rebuilt under another name while events are appended and the old one serves; then readers are turned
// to it. What they see never goes back, nothing is missing or counted twice, and no event is published again.
func TestReplaceBesideAppends(t *testing.T) {
	for name, dsn := range testenv.SQL() {
		t.Run(name, func(t *testing.T) {
			reported := 0
			var mu sync.Mutex
			db, s, err := open(t.Context(), dsn(t), sqlevents.Config{Poll: 5 * time.Millisecond,
				OnAppend: func(_ context.Context, events []eventstore.Recorded) error {
					mu.Lock()
					defer mu.Unlock()
					reported += len(events)
					return nil
				}})
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			event := eventstore.Event{Type: "x"}
			const before, beside = 200, 200
			for range before / 10 {
				if _, err := s.Append(t.Context(), "a", eventstore.AnyVersion, event, event, event, event, event, event, event,
					event, event, event); err != nil {
					t.Fatal(err)
				}
			}
			models := map[string]*eventstore.Projector{}
			for _, model := range []string{"old", "new"} {
				if models[model], err = projector(db, s, model, func(eventstore.Recorded) {}); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := db.Querier(t.Context()).Exec(t.Context(), "INSERT INTO serving VALUES (1, 'old')"); err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			var running, writing sync.WaitGroup
			running.Go(func() { _ = models["old"].Run(ctx) })
			writing.Go(func() {
				for range beside {
					if _, err := s.Append(t.Context(), "b", eventstore.AnyVersion, event); err != nil {
						t.Error(err)
						return
					}
				}
			})
			running.Go(func() { // a reader
				for last := int64(0); ctx.Err() == nil; time.Sleep(time.Millisecond) {
					var n int64
					err := db.Querier(t.Context()).QueryRow(t.Context(),
						"SELECT coalesce(sum(cents), 0) FROM totals WHERE model = (SELECT model FROM serving)").Scan(&n)
					if err != nil || n < last {
						t.Errorf("a reader saw %d after %d (%v)", n, last, err)
						return
					}
					last = n
				}
			})
			err = models["new"].Replace(t.Context(), "old", func(ctx context.Context) error {
				_, err := db.Querier(ctx).Exec(ctx, "UPDATE serving SET model = 'new'")
				return err
			})
			if err != nil {
				t.Error(err)
			}
			running.Go(func() { _ = models["new"].Run(ctx) })
			writing.Wait()
			for n := int64(0); n < before+beside && !t.Failed(); time.Sleep(time.Millisecond) {
				if n, err = s.Lag(t.Context(), ""); err != nil {
					t.Error(err)
				}
			}
			for model, p := range models {
				for lag := int64(1); lag > 0 && !t.Failed(); time.Sleep(2 * time.Millisecond) {
					if lag, err = p.Lag(t.Context()); err != nil {
						t.Error(err)
					}
				}
				var n int64
				err := db.Querier(t.Context()).QueryRow(t.Context(), "SELECT sum(cents) FROM totals WHERE model = $1",
					model).Scan(&n)
				if err != nil || n != before+beside {
					t.Errorf("%s: %d events, want %d (%v)", model, n, before+beside, err)
				}
			}
			stop()
			running.Wait()
			if mu.Lock(); reported != before+beside {
				t.Errorf("reported %d events, want %d: a rebuild must not tell again", reported, before+beside)
			}
			mu.Unlock()
		})
	}
}

// change is not made when the rebuild fails, and Replace begins anew when old moves at that moment.
func TestReplaceFails(t *testing.T) {
	s := memevents.New(memevents.Config{})
	if _, err := s.Append(t.Context(), "a", eventstore.AnyVersion, eventstore.Event{Type: "x"}); err != nil {
		t.Fatal(err)
	}
	if err := s.MoveCheckpoint(t.Context(), "old", "", "1"); err != nil {
		t.Fatal(err)
	}
	boom := errors.New("boom")
	fail := boom
	p, err := eventstore.NewProjector(s, plain{}, func(context.Context, eventstore.Recorded) error { return fail },
		eventstore.ProjectorConfig{Name: "new"})
	if err != nil {
		t.Fatal(err)
	}
	changed := 0
	change := func(context.Context) error { changed++; return nil }
	if err := p.Replace(t.Context(), "old", change); !errors.Is(err, boom) || changed != 0 {
		t.Errorf("a rebuild that fails: %v, changed %d times", err, changed)
	}
	fail = nil
	err = p.Replace(t.Context(), "old", func(ctx context.Context) error {
		if changed++; changed == 1 {
			return fmt.Errorf("as if: %w", eventstore.ErrCheckpoint)
		}
		return nil
	})
	if err != nil || changed != 2 {
		t.Errorf("%v after %d attempts, want 2", err, changed)
	}
	for _, old := range []string{"", "new"} {
		if err := p.Replace(t.Context(), old, change); err == nil {
			t.Errorf("the replacement of %q was accepted", old)
		}
	}
}

// racing lets another come in when the checkpoint of old is looked at for the first time, and notes whether that is
// held.
type racing struct {
	*memevents.Store
	meanwhile func()
	held      bool
}

func (r *racing) Checkpoint(ctx context.Context, projection string) (string, error) {
	if fn := r.meanwhile; projection == "old" && fn != nil {
		r.meanwhile = nil
		fn()
	}
	return r.Store.Checkpoint(ctx, projection)
}

func (r *racing) MoveCheckpoint(ctx context.Context, projection, from, to string) error {
	r.held = r.held || projection == "old" && from == to
	return r.Store.MoveCheckpoint(ctx, projection, from, to)
}

// Old gets ahead when the rebuild has just caught up: it is held, and the rebuild catches up again before the change.
func TestReplaceIsNotBehind(t *testing.T) {
	s := &racing{Store: memevents.New(memevents.Config{})}
	s.meanwhile = func() {
		if _, err := s.Append(t.Context(), "a", eventstore.AnyVersion, eventstore.Event{Type: "x"}); err != nil {
			t.Error(err)
		}
		if err := s.Store.MoveCheckpoint(t.Context(), "old", "", "1"); err != nil {
			t.Error(err)
		}
	}
	applied := 0
	p, err := eventstore.NewProjector(s, plain{}, func(context.Context, eventstore.Recorded) error {
		applied++
		return nil
	}, eventstore.ProjectorConfig{Name: "new"})
	if err != nil {
		t.Fatal(err)
	}
	err = p.Replace(t.Context(), "old", func(context.Context) error {
		if applied != 1 || !s.held {
			t.Errorf("readers are turned with %d events applied, want 1, and old held: %v", applied, s.held)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
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

// A panic stops a projection as an error does, and is logged; it does not end the program. When it is gone the
// projection goes on.
func TestProjectionPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memevents.New(memevents.Config{})
		for range 3 {
			if _, err := s.Append(t.Context(), "a", eventstore.AnyVersion, eventstore.Event{Type: "x"}); err != nil {
				t.Fatal(err)
			}
		}
		var reported bytes.Buffer
		tries, applied := 0, 0
		p, err := eventstore.NewProjector(s, plain{}, func(_ context.Context, r eventstore.Recorded) error {
			if r.Version == 2 {
				if tries++; tries < 4 {
					panic("an old event")
				}
			}
			applied++
			return nil
		}, eventstore.ProjectorConfig{Name: "p", Batch: 1, Logger: slog.New(slog.NewTextHandler(&reported, nil))})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		if err := p.Run(ctx); err != nil || applied != 3 || tries != 4 {
			t.Errorf("%v; %d applied, %d tries", err, applied, tries)
		}
		if n := strings.Count(reported.String(), "an old event"); n < 3 || !strings.Contains(reported.String(), "held up") {
			t.Errorf("reported %d times:\n%s", n, reported.String())
		}
	})
}

// A poison event is parked after ParkAfter failures, in the transaction of the batch, and the others are applied.
func TestPoisonEventIsParked(t *testing.T) {
	for name, dsn := range testenv.SQL() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := sqldb.Must(sqldb.Open(t.Context(), dsn(t), sqldb.Config{Synchronous: "NORMAL"}))
			t.Cleanup(func() { _ = db.Close() })
			s := sqlevents.Must(sqlevents.New(db, sqlevents.Config{}))
			if err := errors.Join(s.EnsureSchema(t.Context()),
				db.Exec(t.Context(),
					"CREATE TABLE applied (id TEXT PRIMARY KEY); CREATE TABLE parked (id TEXT PRIMARY KEY, why TEXT)")); err != nil {
				t.Fatal(err)
			}
			for i := range 5 {
				if _, err := s.Append(t.Context(), "s", int64(i), eventstore.Event{ID: fmt.Sprint("e", i), Type: "x"}); err != nil {
					t.Fatal(err)
				}
			}
			insert := func(ctx context.Context, query string, args ...any) error {
				_, err := db.Querier(ctx).Exec(ctx, query, args...)
				return err
			}
			tries, down := 0, true
			parkErr := errors.New("the table of parked events is locked")
			p, err := eventstore.NewProjector(s, db, func(ctx context.Context, e eventstore.Recorded) error {
				if e.ID == "e2" {
					tries++
					// a real error, which ends a transaction
					return insert(ctx, "INSERT INTO applied VALUES (NULL || 'x', 'too many')")
				}
				return insert(ctx, "INSERT INTO applied VALUES ($1)", e.ID)
			}, eventstore.ProjectorConfig{Name: "p", ParkAfter: 3, Logger: slog.New(slog.DiscardHandler),
				Park: func(ctx context.Context, e eventstore.Recorded, cause error) error {
					if down {
						down = false
						return parkErr
					}
					return insert(ctx, "INSERT INTO parked VALUES ($1, $2)", e.ID, cause.Error())
				}})
			if err != nil {
				t.Fatal(err)
			}
			for lag := int64(0); lag < 5; { // other transactions of the server may hold readers up
				if lag, err = p.Lag(t.Context()); err != nil {
					t.Fatal(err)
				}
				s.Wait(t.Context())
			}
			for i := range 3 {
				var failed *eventstore.ApplyError
				n, err := p.Step(t.Context())
				for end := time.Now().Add(time.Minute); i == 0 && n == 0 && err == nil && time.Now().Before(end); {
					time.Sleep(10 * time.Millisecond) // older transactions on the server are under way
					n, err = p.Step(t.Context())
				}
				if !errors.As(err, &failed) || failed.Event.ID != "e2" || n != 0 {
					t.Fatalf("step %d: %d, %v; want an ApplyError of e2", i, n, err)
				}
			}
			if _, err := p.Step(t.Context()); !errors.Is(err, parkErr) {
				t.Fatalf("Park fails: %v", err)
			}
			if n, err := p.Step(t.Context()); n != 5 || err != nil {
				t.Fatalf("%d, %v; want the batch without the event", n, err)
			}
			var applied, parked int64
			err = errors.Join(db.Querier(t.Context()).QueryRow(t.Context(), "SELECT count(*) FROM applied").Scan(&applied),
				db.Querier(t.Context()).QueryRow(t.Context(),
					"SELECT count(*) FROM parked WHERE id = 'e2' AND why <> ''").Scan(&parked))
			if err != nil || applied != 4 || parked != 1 || tries != 3 {
				t.Errorf("%d applied, %d parked after %d tries, %v; want 4, 1 and 3", applied, parked, tries, err)
			}
		})
	}
}

// While the database does not answer, nothing is an event's fault.
func TestOutagesParkNothing(t *testing.T) {
	s := memevents.New(memevents.Config{})
	if _, err := s.Append(t.Context(), "s", 0, eventstore.Event{ID: "e", Type: "x"}); err != nil {
		t.Fatal(err)
	}
	outage := errors.New("connection refused")
	down, applied := true, 0
	tx := transactor(func(ctx context.Context, fn func(context.Context) error) error {
		if err := fn(ctx); err != nil || !down {
			return err
		}
		return outage
	})
	p, err := eventstore.NewProjector(s, tx, func(context.Context, eventstore.Recorded) error {
		if down {
			return outage
		}
		applied++
		return nil
	}, eventstore.ProjectorConfig{Name: "p", ParkAfter: 2, Park: func(context.Context, eventstore.Recorded, error) error {
		t.Error("an event was parked")
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if _, err := p.Step(t.Context()); !errors.Is(err, outage) {
			t.Fatal(err)
		}
	}
	down = false
	if n, err := p.Step(t.Context()); n != 1 || err != nil || applied != 1 {
		t.Errorf("after the outage: %d, %v, applied %d", n, err, applied)
	}
}

type transactor func(ctx context.Context, fn func(context.Context) error) error

func (f transactor) InTx(ctx context.Context, fn func(ctx context.Context) error) error {
	return f(ctx, fn)
}
