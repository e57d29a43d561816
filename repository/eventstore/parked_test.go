package eventstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/repository/eventstore"
	"github.com/sillar-go/sillar/repository/eventstore/memevents"
	"github.com/sillar-go/sillar/repository/eventstore/sqlevents"
	"github.com/sillar-go/sillar/repository/sqldb"
	_ "github.com/sillar-go/sillar/repository/sqldb/sqlite"
)

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
