package sqlevents_test

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/sillar-go/sillar/repository/eventstore"
	"github.com/sillar-go/sillar/repository/eventstore/sqlevents"
	"github.com/sillar-go/sillar/repository/sqldb"
)

// What OnAppend does is committed with the events, or neither is: a program calls its outbox there.
func Example() {
	ctx := context.Background()
	db := sqldb.Must(sqldb.Open(ctx, "sqlite::memory:", sqldb.Config{})) // or postgres://...
	defer db.Close()
	store := sqlevents.Must(sqlevents.New(db, sqlevents.Config{OnAppend: func(_ context.Context,
		events []eventstore.Recorded) error {
		fmt.Println("received", len(events))
		return nil
	}}))
	if err := store.EnsureSchema(ctx); err != nil {
		fmt.Println(err)
		return
	}
	paid := eventstore.Event{Type: "order_paid", Data: json.RawMessage(`{"cents":1990}`)}
	_, err := store.Append(ctx, "order-1", eventstore.NoStream, eventstore.Event{Type: "order_created"}, paid)
	fmt.Println(err)
	_, err = store.Append(ctx, "order-1", 1, paid) // by one who has not seen the payment
	fmt.Println(err)
	for e, err := range eventstore.Load(ctx, store, "order-1") {
		fmt.Println(e.Version, e.Type, string(e.Data), err)
	}
	// Output:
	// received 2
	// <nil>
	// sqlevents: append to order-1: repository: conflict on order-1: expected version 1, found 2
	// 1 order_created null <nil>
	// 2 order_paid {"cents":1990} <nil>
}
