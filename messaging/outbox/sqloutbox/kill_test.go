package sqloutbox_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/sillar-go/sillar/internal/killtest"
	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/outbox"
	"github.com/sillar-go/sillar/messaging/outbox/sqloutbox"
	"github.com/sillar-go/sillar/repository/sqldb"
)

// witness is a broker that remembers in a table of its own what it confirmed. Between confirm and delete it pauses, and
// says so, which is when the test kills.
type witness struct{ db *sqldb.DB }

func (w witness) Publish(context.Context, string, any, ...messaging.Option) error {
	return errors.New("batches only")
}

func (w witness) PublishBatch(ctx context.Context, events []messaging.Envelope) error {
	for _, e := range events {
		if _, err := w.db.Querier(ctx).Exec(ctx, "INSERT INTO witness (id) VALUES ($1)", e.ID); err != nil {
			return err
		}
	}
	fmt.Println("confirmed", len(events))
	time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond)
	return nil
}

func init() {
	killtest.Register("relay", func(args []string) error {
		ctx := context.Background()
		db, err := sqldb.Open(ctx, args[0], sqldb.Config{MaxConns: 4})
		if err != nil {
			return err
		}
		r := outbox.MustRelay(sqloutbox.Must(db, sqloutbox.Config{}), witness{db}, outbox.RelayConfig{Batch: 10, Lease: time.Second, Poll: 20 * time.Millisecond})
		fmt.Println("ready")
		return r.Run(ctx)
	})
}

// Two relay processes are killed over and over between confirm and delete: every committed event is published, and none
// that was rolled back.
func TestKilledRelays(t *testing.T) {
	dsn := testenv.Postgres(t)
	db, o := open(t, dsn)
	if err := db.Exec(t.Context(), "CREATE TABLE witness (id TEXT NOT NULL)"); err != nil {
		t.Fatal(err)
	}
	relays := []*killtest.Process{killtest.Start(t, "relay", dsn), killtest.Start(t, "relay", dsn)}

	const n = 300
	boom := errors.New("boom")
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range n {
			err := db.InTx(t.Context(), func(ctx context.Context) error {
				if err := o.Publish(ctx, "t", i, messaging.WithID(fmt.Sprint(i)), messaging.WithKey(fmt.Sprint(i%20))); err != nil {
					return err
				}
				if i%3 == 0 {
					return boom
				}
				return nil
			})
			if err != nil && !errors.Is(err, boom) {
				t.Error(err)
			}
			time.Sleep(3 * time.Millisecond)
		}
	})
	for i := range 6 {
		p := relays[i%2]
		p.Line(t, "confirmed")
		relays[i%2] = p.Restart(t)
	}
	wg.Wait()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		left, _, err := o.Pending(t.Context())
		if err != nil || time.Now().After(end) {
			t.Fatalf("%d events still wait: %v", left, err)
		}
		if left == 0 {
			break
		}
	}
	var committed, rolledBack, all int
	if err := db.Querier(t.Context()).QueryRow(t.Context(), `SELECT count(DISTINCT id) FILTER (WHERE id::int % 3 <> 0),
		count(*) FILTER (WHERE id::int % 3 = 0), count(*) FROM witness`).Scan(&committed, &rolledBack, &all); err != nil {
		t.Fatal(err)
	}
	if committed != n-n/3 || rolledBack != 0 {
		t.Fatalf("%d of %d committed events were published, and %d rolled back", committed, n-n/3, rolledBack)
	}
	t.Logf("%d events published, %d of them twice", committed, all-committed)
}
