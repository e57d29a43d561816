package mongoevents_test

import (
	"context"
	"fmt"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/sillar-go/sillar/repository/eventstore"
	"github.com/sillar-go/sillar/repository/eventstore/mongoevents"
)

// It needs a server, so it is compiled and not run.
func Example() {
	ctx := context.Background()
	client, err := mongo.Connect(options.Client().ApplyURI("mongodb://127.0.0.1:27017/"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = client.Disconnect(ctx) }()
	store := mongoevents.Must(mongoevents.New(ctx, client.Database("orders"), mongoevents.Config{}))
	if _, err := store.Append(ctx, "order-1", eventstore.NoStream, eventstore.Event{Type: "order_created"}); err != nil {
		fmt.Println(err)
		return
	}
	for e, err := range eventstore.Subscribe(ctx, store, "") {
		fmt.Println(e.Stream, e.Version, e.Type, err)
		break
	}
}
