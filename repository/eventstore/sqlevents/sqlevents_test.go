package sqlevents_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/repository/eventstore"
	"github.com/sillar-go/sillar/repository/eventstore/eventstoretest"
	"github.com/sillar-go/sillar/repository/eventstore/sqlevents"
	"github.com/sillar-go/sillar/repository/sqldb"
	_ "github.com/sillar-go/sillar/repository/sqldb/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t testing.TB, dsn string, cfg sqlevents.Config) (*sqldb.DB, *sqlevents.Store) {
	t.Helper()
	db, err := sqldb.Open(t.Context(), dsn, sqldb.Config{Synchronous: "NORMAL"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	s := sqlevents.Must(sqlevents.New(db, cfg))
	if err := s.EnsureSchema(t.Context()); err != nil {
		t.Fatal(err)
	}
	return db, s
}

func TestConformance(t *testing.T) {
	for name, dsn := range testenv.SQL() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dbs := map[eventstore.Store]*sqldb.DB{}
			eventstoretest.Run(t, func(t testing.TB) eventstore.Store {
				db, s := open(t, dsn(t), sqlevents.Config{Prefix: "own_"})
				dbs[s] = db
				return s
			}, eventstoretest.Features{InTx: func(ctx context.Context, s eventstore.Store,
				fn func(context.Context) error) error {
				return dbs[s].InTx(ctx, fn)
			}})
		})
	}
}

func TestOnAppend(t *testing.T) {
	for name, dsn := range testenv.SQL() {
		t.Run(name, func(t *testing.T) {
			boom := errors.New("boom")
			var db *sqldb.DB
			var fail error
			reported := 0
			db, s := open(t, dsn(t), sqlevents.Config{OnAppend: func(ctx context.Context, events []eventstore.Recorded) error {
				if _, err := db.Tx(ctx); err != nil {
					t.Errorf("OnAppend outside a transaction: %v", err)
				}
				reported += len(events)
				return fail
			}})
			e := eventstore.Event{Type: "x"}
			if _, err := s.Append(t.Context(), "a", 0, e, e); err != nil || reported != 2 {
				t.Fatalf("%v, reported %d events", err, reported)
			}
			fail = boom
			if _, err := s.Append(t.Context(), "a", 2, e); !errors.Is(err, boom) {
				t.Fatal(err)
			}
			fail = nil
			if _, err := s.Append(t.Context(), "a", 2, e); err != nil {
				t.Fatalf("after an append that OnAppend undid: %v", err)
			}
		})
	}
}

// An older transaction appends to a stream after a younger one has committed: the order of versions must stay the order
// of reading, so the older one begins anew.
func TestOvertakenTransactionBeginsAnew(t *testing.T) {
	db, s := open(t, testenv.Postgres(t), sqlevents.Config{})
	e := eventstore.Event{Type: "x"}
	runs := 0
	err := db.InTx(t.Context(), func(ctx context.Context) error {
		runs++
		if _, err := db.Querier(ctx).Exec(ctx, "SELECT pg_current_xact_id()"); err != nil {
			return err
		}
		if runs == 1 {
			if _, err := s.Append(t.Context(), "a", eventstore.AnyVersion, e); err != nil { // another transaction
				return err
			}
		}
		_, err := s.Append(ctx, "a", eventstore.AnyVersion, e)
		return err
	})
	if err != nil || runs != 2 {
		t.Fatalf("%v after %d runs, want 2", err, runs)
	}
	var events []eventstore.Recorded
	for end := time.Now().Add(20 * time.Second); len(events) < 2 &&
		time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		events, _, err = s.Read(t.Context(), "", 10) // others' transactions, in other databases of the server, hold it up
	}
	if err != nil || len(events) != 2 || events[0].Version != 1 || events[1].Version != 2 {
		t.Fatalf("read %v, %v", events, err)
	}
}

// The order of reading is that of transaction ids as numbers: at 10, at 1000000, nothing is reordered or passed over.
func TestOrderIsNumeric(t *testing.T) {
	db, s := open(t, testenv.Postgres(t), sqlevents.Config{})
	xids := []string{"9", "10", "99", "100", "999", "1000"}
	for i, xid := range xids {
		if _, err := s.Append(t.Context(), fmt.Sprint(i), eventstore.NoStream, eventstore.Event{Type: "x"}); err != nil {
			t.Fatal(err)
		}
		if _, err := db.Querier(t.Context()).Exec(t.Context(),
			"UPDATE sillar_events SET xid = $1::text::xid8 WHERE stream = $2", xid, fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	for _, limit := range []int{1, 2, 100} {
		var got []string
		for cursor := ""; ; {
			events, next, err := s.Read(t.Context(), cursor, limit)
			if err != nil {
				t.Fatal(err)
			}
			if len(events) == 0 {
				break
			}
			for _, e := range events {
				got = append(got, e.Stream)
			}
			cursor = next
		}
		if want := "0 1 2 3 4 5"; strings.Join(got, " ") != want {
			t.Errorf("in pages of %d: %v, want %s", limit, got, want)
		}
	}
}

// What another process appends ends the wait of one that listens, long before it would have looked; and it still does
// after the connection that listened was lost.
func TestListenWakesOnAppendsElsewhere(t *testing.T) {
	dsn := testenv.Postgres(t)
	_, appends := open(t, dsn, sqlevents.Config{})
	db, follows := open(t, dsn, sqlevents.Config{Poll: time.Hour, Logger: slog.New(slog.DiscardHandler)})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- follows.Listen(ctx) }()
	listening := func(other int64) (pid int64) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); pid == 0 || pid == other; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("no process listens")
			}
			err := db.Querier(t.Context()).QueryRow(t.Context(),
				"SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN %' AND state = 'idle'").Scan(&pid)
			if err != nil && !errors.Is(err, sqldb.ErrNoRows) {
				t.Fatal(err)
			}
		}
		return pid
	}
	hears := func() {
		t.Helper()
		slow := 0
		for range 5 {
			begin := time.Now()
			var appended sync.WaitGroup
			appended.Go(func() {
				time.Sleep(20 * time.Millisecond) // the other waits
				if _, err := appends.Append(t.Context(), "a", eventstore.AnyVersion, eventstore.Event{Type: "x"}); err != nil {
					t.Error(err)
				}
			})
			follows.Wait(t.Context())
			if took := time.Since(begin); took > 900*time.Millisecond { // without NOTIFY it looks after a second
				slow++
			}
			appended.Wait()
		}
		if slow > 2 {
			t.Errorf("%d of 5 waits were not ended by an append of another process", slow)
		}
	}
	pid := listening(0)
	hears()
	if _, err := db.Querier(t.Context()).Exec(t.Context(), "SELECT pg_terminate_backend($1)", pid); err != nil {
		t.Fatal(err)
	}
	listening(pid)
	hears()
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
