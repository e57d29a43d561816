// Command outbox shows how an order and its event become one: both are written in one transaction, the event is
// published when that has committed and only then, and the service that receives it applies it once, however often it
// comes.
//
//	go run ./examples/outbox
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/inbox/sqlinbox"
	"github.com/sillar-go/sillar/messaging/memory"
	"github.com/sillar-go/sillar/messaging/outbox"
	"github.com/sillar-go/sillar/messaging/outbox/sqloutbox"
	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/sqldb"
	_ "github.com/sillar-go/sillar/repository/sqldb/sqlite" // the driver of sqlite:
	"github.com/sillar-go/sillar/repository/sqlrepo"
)

// Order is stored by the orders service.
type Order struct {
	repository.Meta
	Item string
}

// OrderPlaced is the event for other services.
type OrderPlaced struct {
	ID   string `json:"id"`
	Item string `json:"item"`
}

func main() {
	ctx, stop := context.WithTimeout(context.Background(), 30*time.Second)
	defer stop()
	if err := run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		stop()
		os.Exit(1) //nolint:gocritic // stop has run
	}
}

func run(ctx context.Context, out io.Writer) error {
	quiet := slog.New(slog.DiscardHandler)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	broker := memory.Must(memory.New(memory.Config{Source: "shop"})) // or rabbitmq.New(ctx, "amqp://...", ...)
	defer broker.Close()

	// The orders service: its database holds the orders and the outbox.
	orders := sqldb.Must(sqldb.Open(ctx, "sqlite::memory:", sqldb.Config{}))
	defer orders.Close()
	schema, err := sqlrepo.Schema[Order](orders.Dialect(), "orders")
	if err != nil {
		return err
	}
	repo := sqlrepo.Must(sqlrepo.New[Order](orders, sqlrepo.Config{Table: "orders"}))
	box := sqloutbox.Must(sqloutbox.New(orders, sqloutbox.Config{Source: "orders"}))
	if err := errors.Join(orders.Exec(ctx, schema), box.EnsureSchema(ctx)); err != nil {
		return err
	}
	relay := outbox.Must(outbox.NewRelay(box, broker, outbox.RelayConfig{Logger: quiet}))

	// The billing service: its database holds the invoices and the inbox.
	billing := sqldb.Must(sqldb.Open(ctx, "sqlite::memory:", sqldb.Config{}))
	defer billing.Close()
	inbox := sqlinbox.Must(sqlinbox.New(billing, sqlinbox.Config{}))
	err = errors.Join(billing.Exec(ctx, "CREATE TABLE invoices (order_id TEXT, item TEXT)"), inbox.EnsureSchema(ctx))
	if err != nil {
		return err
	}
	router := messaging.Must(messaging.NewRouter(broker, messaging.RouterConfig{Logger: quiet}))
	group := router.Group("billing", messaging.GroupConfig{
		Dedup: inbox, // the handler runs in a transaction with the note that the event was applied
		Retry: messaging.Retry{Attempts: 5, Backoff: messaging.Constant(10 * time.Millisecond)},
	})
	invoiced := make(chan string, 10)
	messaging.Handle(group, "orders.placed", func(ctx context.Context, m messaging.Message[OrderPlaced]) error {
		_, err := billing.Querier(ctx).Exec(ctx, "INSERT INTO invoices VALUES ($1, $2)", m.Data.ID, m.Data.Item)
		if err == nil && m.Attempt == 1 {
			return errors.New("billing fails after its first write") // which is rolled back
		}
		if err == nil {
			invoiced <- m.Data.Item
		}
		return err
	})
	ended := make(chan error, 2)
	go func() { ended <- router.Run(ctx) }()
	go func() { ended <- relay.Run(ctx) }()

	// Two orders: one that is rolled back, and one that commits. Only the second is announced.
	place := func(item string, failure error) error {
		return orders.InTx(ctx, func(ctx context.Context) error {
			o, err := repo.Create(ctx, Order{Item: item})
			if err != nil {
				return err
			}
			return errors.Join(box.Publish(ctx, "orders.placed", OrderPlaced{o.ID, o.Item}), failure)
		})
	}
	_, _ = fmt.Fprintln(out, "lamp:", place("lamp", errors.New("out of stock")))
	_, _ = fmt.Fprintln(out, "chair:", place("chair", nil))
	select {
	case item := <-invoiced:
		_, _ = fmt.Fprintln(out, "invoice for:", item)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	stop() // both drain
	err = errors.Join(<-ended, <-ended)

	var n int64
	check := context.WithoutCancel(ctx)
	err = errors.Join(err, billing.Querier(check).QueryRow(check, "SELECT count(*) FROM invoices").Scan(&n))
	_, _ = fmt.Fprintln(out, "invoices in the database:", n)
	return err
}
