package brokertest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/sillar-go/sillar/internal/killtest"
	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/inbox/sqlinbox"
	"github.com/sillar-go/sillar/messaging/outbox"
	"github.com/sillar-go/sillar/messaging/outbox/sqloutbox"
	"github.com/sillar-go/sillar/repository/sqldb"
)

var quiet = slog.New(slog.DiscardHandler)

// lingering is a Dedup that leaves time to be killed between the commit and the acknowledgement.
type lingering struct{ messaging.Deduplicator }

func (l lingering) Once(ctx context.Context, consumer, id string, fn func(context.Context) error) (bool, error) {
	dup, err := l.Deduplicator.Once(ctx, consumer, id, fn)
	if err == nil && !dup {
		fmt.Fprintln(os.Stdout, "applied", id) // the test reads it
		time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
	}
	return dup, err
}

// RegisterConsumer makes a program of killtest of the consumer of EndToEnd, for init. Open makes its broker of the
// arguments.
func RegisterConsumer(open func(args []string) messaging.Broker) {
	killtest.Register("consumer", func(args []string) error { return consume(args[0], open(args[1:])) })
}

func consume(dsn string, broker messaging.Broker) error {
	ctx := context.Background()
	db, err := sqldb.Open(ctx, dsn, sqldb.Config{MaxConns: 8})
	if err != nil {
		return err
	}
	r := messaging.Must(messaging.NewRouter(broker, messaging.RouterConfig{Logger: quiet}))
	g := r.Group("g", messaging.GroupConfig{Concurrency: 4,
		Dedup: lingering{sqlinbox.Must(sqlinbox.New(db, sqlinbox.Config{}))},
		Retry: messaging.Retry{Attempts: -1, Backoff: messaging.Constant(100 * time.Millisecond)}})
	messaging.HandleRaw(g, "t", func(ctx context.Context, m messaging.Message[[]byte]) error {
		if _, err := db.Querier(ctx).Exec(ctx, "INSERT INTO effects (id) VALUES ($1)", m.ID); err != nil {
			return err
		}
		if m.Attempt == 1 && rand.IntN(10) == 0 {
			return errors.New("an attempt that fails after its write")
		}
		return nil
	})
	return r.Run(ctx)
}

// EndToEnd takes events from a transaction to another one, by way of outbox, relay, broker and inbox, while the relay's
// connections are cut and the consumer's process, which has the arguments args, is killed: every committed event has
// exactly one effect.
func EndToEnd(t *testing.T, b messaging.Broker, cut func(), args ...string) {
	t.Helper()
	dsn := testenv.Postgres(t)
	db, err := sqldb.Open(t.Context(), dsn, sqldb.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	box, inbox := sqloutbox.Must(sqloutbox.New(db, sqloutbox.Config{Source: "test"})),
		sqlinbox.Must(sqlinbox.New(db, sqlinbox.Config{}))
	if err := errors.Join(box.EnsureSchema(t.Context()), inbox.EnsureSchema(t.Context()),
		db.Exec(t.Context(), "CREATE TABLE effects (id TEXT NOT NULL)")); err != nil {
		t.Fatal(err)
	}
	s, err := b.Subscribe(t.Context(), messaging.Subscription{Group: "g", Patterns: []string{"t"}})
	if err == nil {
		err = s.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	relayed := make(chan error, 1)
	go func() {
		relayed <- outbox.Must(outbox.NewRelay(box, b, outbox.RelayConfig{Logger: quiet, Batch: 20})).Run(ctx)
	}()
	defer func() {
		stop()
		if err := <-relayed; err != nil {
			t.Error(err)
		}
	}()

	const n = 300
	stored := make(chan error, 1)
	go func() {
		for i := range n {
			err := db.InTx(t.Context(), func(ctx context.Context) error {
				return box.Publish(ctx, "t", i, messaging.WithID(fmt.Sprint(i)), messaging.WithKey(fmt.Sprint(i%30)))
			})
			if err != nil {
				stored <- err
				return
			}
			time.Sleep(2 * time.Millisecond)
		}
		stored <- nil
	}()
	consumer := killtest.Start(t, "consumer", append([]string{dsn}, args...)...)
	for range 4 {
		consumer.Line(t, "applied")
		cut()
		consumer = consumer.Restart(t)
	}
	if err := <-stored; err != nil {
		t.Fatal(err)
	}
	var distinct, all int
	for end := time.Now().Add(30 * time.Second); distinct < n &&
		time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err := db.Querier(t.Context()).QueryRow(t.Context(),
			"SELECT count(DISTINCT id), count(*) FROM effects").Scan(&distinct, &all); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(300 * time.Millisecond) // for a duplicate to show
	if err := db.Querier(t.Context()).QueryRow(t.Context(),
		"SELECT count(DISTINCT id), count(*) FROM effects").Scan(&distinct, &all); err != nil {
		t.Fatal(err)
	}
	if distinct != n || all != n {
		t.Fatalf("%d events had %d effects, want %d and %d", distinct, all, n, n)
	}
	if dead, err := b.DeadLetters(t.Context(), "g", 10); err != nil || len(dead) != 0 {
		t.Errorf("dead letters %v, %v", dead, err)
	}
}
