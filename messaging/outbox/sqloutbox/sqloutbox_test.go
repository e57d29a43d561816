package sqloutbox_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sillar-go/sillar/internal/correlation"
	"github.com/sillar-go/sillar/internal/killtest"
	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/memory"
	"github.com/sillar-go/sillar/messaging/outbox"
	"github.com/sillar-go/sillar/messaging/outbox/outboxtest"
	"github.com/sillar-go/sillar/messaging/outbox/sqloutbox"
	"github.com/sillar-go/sillar/repository/sqldb"
	_ "github.com/sillar-go/sillar/repository/sqldb/sqlite"
)

func TestMain(m *testing.M) { killtest.Main(); goleak.VerifyTestMain(m) }

func open(t testing.TB, dsn string) (*sqldb.DB, *sqloutbox.Outbox) {
	t.Helper()
	db, err := sqldb.Open(t.Context(), dsn, sqldb.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	o := sqloutbox.Must(sqloutbox.New(db, sqloutbox.Config{Source: "test"}))
	if err := o.EnsureSchema(t.Context()); err != nil {
		t.Fatal(err)
	}
	return db, o
}

func TestConformance(t *testing.T) {
	for name, dsn := range testenv.SQL() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			outboxtest.Run(t, func(t *testing.T) outboxtest.Box {
				db, o := open(t, dsn(t))
				return outboxtest.Box{Store: o, Commit: func(ctx context.Context, fail error, events ...messaging.Envelope) error {
					return db.InTx(ctx, func(ctx context.Context) error {
						return errors.Join(o.PublishBatch(ctx, events), fail)
					})
				}}
			})
		})
	}
}

// Outside a transaction nothing is stored, and what an event carries is of the transaction's context.
func TestPublishStoresWithinTheTransaction(t *testing.T) {
	for name, dsn := range testenv.SQL() {
		t.Run(name, func(t *testing.T) {
			db, o := open(t, dsn(t))
			ctx := correlation.With(t.Context(), "c-1")
			if err := o.Publish(ctx, "a", 1); !errors.Is(err, sqldb.ErrNoTx) {
				t.Fatalf("outside a transaction: %v", err)
			}
			if err := o.PublishBatch(ctx, []messaging.Envelope{{Type: "a"}}); !errors.Is(err, sqldb.ErrNoTx) {
				t.Fatalf("a batch outside a transaction: %v", err)
			}
			if err := db.InTx(ctx, func(ctx context.Context) error {
				if err := o.Publish(ctx, "bad topic", 1); !errors.Is(err, messaging.ErrInvalid) {
					return fmt.Errorf("a malformed topic: %w", err)
				}
				return o.Publish(ctx, "a", map[string]int{"n": 1}, messaging.WithKey("k"))
			}); err != nil {
				t.Fatal(err)
			}
			got, err := o.Claim(t.Context(), "me", 10, time.Minute)
			if err != nil || len(got) != 1 || got[0].Headers["x-correlation-id"] != "c-1" || string(got[0].Body) != `{"n":1}` ||
				got[0].Key != "k" {
				t.Fatalf("%+v, %v", got, err)
			}
		})
	}
}

// A commit in one process wakes the relay of another.
func TestCommitWakesAnotherProcess(t *testing.T) {
	dsn := testenv.Postgres(t)
	db, here := open(t, dsn)
	_, there := open(t, dsn)
	broker := memory.Must(memory.New(memory.Config{}))
	defer broker.Close()
	s, err := broker.Subscribe(t.Context(), messaging.Subscription{Group: "g", Patterns: []string{"#"}, Prefetch: 10})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- outbox.Must(outbox.NewRelay(there, broker, outbox.RelayConfig{Poll: time.Hour})).Run(ctx)
	}()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	wait, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	received := make(chan messaging.Delivery, 1)
	go func() {
		d, err := s.Receive(wait)
		if err != nil {
			t.Error(err)
		}
		received <- d
	}()
	for i := 0; ; i++ { // the relay may not listen yet at the first
		if err := db.InTx(t.Context(), func(ctx context.Context) error { return here.Publish(ctx, "a", i) }); err != nil {
			t.Fatal(err)
		}
		select {
		case <-received:
			return
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// A transaction that commits late is not skipped.
func TestLateCommit(t *testing.T) {
	db, o := open(t, testenv.Postgres(t))
	inside, goOn := make(chan struct{}), make(chan struct{})
	late := make(chan error, 1)
	go func() {
		late <- db.InTx(t.Context(), func(ctx context.Context) error {
			err := o.Publish(ctx, "late", 1)
			close(inside)
			<-goOn
			return err
		})
	}()
	<-inside
	claim := func() []outbox.Entry {
		t.Helper()
		got, err := o.Claim(t.Context(), "me", 10, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if err := o.Done(t.Context(), "me", got); err != nil {
			t.Fatal(err)
		}
		return got
	}
	if err := db.InTx(t.Context(), func(ctx context.Context) error { return o.Publish(ctx, "early", 1) }); err != nil {
		t.Fatal(err)
	}
	if got := claim(); len(got) != 1 || got[0].Type != "early" {
		t.Fatalf("first %+v", got)
	}
	close(goOn)
	if err := <-late; err != nil {
		t.Fatal(err)
	}
	if got := claim(); len(got) != 1 || got[0].Type != "late" {
		t.Fatalf("then %+v", got)
	}
}
