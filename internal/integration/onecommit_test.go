// Package integration tests what no package can by itself: that they stand together.
package integration

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"go.uber.org/goleak"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/messaging/inbox/sqlinbox"
	"github.com/sillar-go/sillar/messaging/outbox/sqloutbox"
	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/eventstore"
	"github.com/sillar-go/sillar/repository/eventstore/sqlevents"
	"github.com/sillar-go/sillar/repository/sqldb"
	_ "github.com/sillar-go/sillar/repository/sqldb/sqlite"
	"github.com/sillar-go/sillar/repository/sqlrepo"
	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/barrier"
	"github.com/sillar-go/sillar/saga/sagasql"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

type product struct {
	repository.Meta
	Name string
}

var trip = saga.Define[string]("trip", 1, saga.Step("go", func(context.Context, *saga.Call, *string) error {
	return nil
}))

// parts are everything that takes part in one transaction.
type parts struct {
	db       *sqldb.DB
	products *sqlrepo.Repo[product]
	events   *sqlevents.Store
	sagas    *saga.Orchestrator
	outbox   *sqloutbox.Outbox
	inbox    *sqlinbox.Inbox
	barrier  *barrier.Barrier
}

func open(t *testing.T, dsn string) *parts {
	t.Helper()
	ctx := t.Context()
	db := sqldb.Must(sqldb.Open(ctx, dsn, sqldb.Config{Synchronous: "NORMAL"}))
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	p := &parts{db: db, events: sqlevents.Must(sqlevents.New(db, sqlevents.Config{})),
		outbox: sqloutbox.Must(sqloutbox.New(db, sqloutbox.Config{Source: "test"})),
		inbox:  sqlinbox.Must(sqlinbox.New(db, sqlinbox.Config{})), barrier: barrier.Must(barrier.New(db, barrier.Config{}))}
	store := sagasql.Must(sagasql.New(db, sagasql.Config{}))
	schema, err := sqlrepo.Schema[product](db.Dialect(), "products")
	if err == nil {
		err = db.Exec(ctx, schema)
	}
	for _, s := range []interface{ EnsureSchema(context.Context) error }{p.events, p.outbox, p.inbox, p.barrier, store} {
		err = errors.Join(err, s.EnsureSchema(ctx))
	}
	if err != nil {
		t.Fatal(err)
	}
	p.products = sqlrepo.Must(sqlrepo.New[product](db, sqlrepo.Config{Table: "products"}))
	// it does not run by itself: what is started waits
	p.sagas = saga.Must(saga.New(store, saga.Config{Logger: quiet}, trip))
	return p
}

// all does something with every part.
func (p *parts) all(ctx context.Context) error {
	_, err := p.products.Create(ctx, product{Name: "lamp"}, func(ctx context.Context, pr *product) error {
		return p.outbox.Publish(ctx, "products.created", pr)
	})
	if err != nil {
		return err
	}
	if _, err := p.events.Append(ctx, "order-1", eventstore.NoStream, eventstore.Event{Type: "created"}); err != nil {
		return err
	}
	if _, err := trip.Start(ctx, p.sagas, "trip-1", "far"); err != nil {
		return err
	}
	if err := p.barrier.Do(ctx, "x/y/do", func(context.Context) error { return nil }); err != nil {
		return err
	}
	_, err = p.inbox.Once(ctx, "me", "message-1", func(ctx context.Context) error {
		if _, err := p.db.Tx(ctx); err != nil {
			return err
		}
		return nil
	})
	return err
}

// traces counts what the parts have left in the database.
func (p *parts) traces(t *testing.T) (n int64) {
	t.Helper()
	for _, table := range []string{"products", "sillar_events", "sillar_streams", "sillar_sagas", "sillar_outbox",
		"sillar_inbox", "sillar_barrier"} {
		var rows int64
		if err := p.db.Querier(t.Context()).QueryRow(t.Context(), "SELECT count(*) FROM "+table).Scan(&rows); err != nil {
			t.Fatal(err)
		}
		n += rows
	}
	return n
}

// One commit covers the repository, the event store, a saga's start, the outbox, the inbox and the barrier; and when it
// does not come, whatever the reason, none of them has left a trace.
func TestOrderAndEventShareOneCommit(t *testing.T) {
	for name, dsn := range testenv.SQL() {
		t.Run(name, func(t *testing.T) {
			p := open(t, dsn(t))
			checkRollbacks(t, p)
			ctx, cancel := context.WithCancel(t.Context())
			err := p.db.InTx(ctx, func(ctx context.Context) error {
				err := p.all(ctx)
				cancel()
				return err
			})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("a cancelled context: %v", err)
			}
			if n := p.traces(t); n != 0 {
				t.Errorf("a cancelled context left %d rows", n)
			}
			if err := p.db.InTx(t.Context(), p.all); err != nil {
				t.Fatal(err)
			}
			if n := p.traces(t); n != 7 {
				t.Errorf("a commit left %d rows, want one in each of 7 tables", n)
			}
			if r, err := p.sagas.Get(t.Context(), "trip-1"); err != nil || r.Status != saga.Running || r.Fence != 0 {
				t.Errorf("the saga: %+v, %v", r, err)
			}
		})
	}
}

// checkRollbacks ends a transaction in each way that must leave nothing.
func checkRollbacks(t *testing.T, p *parts) {
	t.Helper()
	boom := errors.New("boom")
	for what, fn := range map[string]func(ctx context.Context) error{
		"an error": func(ctx context.Context) error { return errors.Join(p.all(ctx), boom) },
		"a nested error that is swallowed": func(ctx context.Context) error {
			_ = p.db.InTx(ctx, func(ctx context.Context) error { return errors.Join(p.all(ctx), boom) })
			return nil
		},
		"a panic": func(ctx context.Context) error {
			if err := p.all(ctx); err != nil {
				return err
			}
			panic(boom)
		},
	} {
		func() {
			defer func() {
				if r := recover(); r != nil && r != any(boom) {
					panic(r)
				}
			}()
			if err := p.db.InTx(t.Context(), fn); err == nil {
				t.Errorf("%s: committed", what)
			}
		}()
		if n := p.traces(t); n != 0 {
			t.Errorf("%s left %d rows", what, n)
		}
	}
}
