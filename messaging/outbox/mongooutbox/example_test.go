package mongooutbox_test

import (
	"context"
	"fmt"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/sillar-go/sillar/messaging/memory"
	"github.com/sillar-go/sillar/messaging/outbox"
	"github.com/sillar-go/sillar/messaging/outbox/mongooutbox"
	"github.com/sillar-go/sillar/repository/mongorepo"
)

// The event is part of the document's write.
func Example() {
	ctx := context.Background()
	client, err := mongo.Connect(options.Client().ApplyURI("mongodb://localhost"))
	if err != nil {
		fmt.Println(err)
		return
	}
	db := client.Database("shop")
	things := mongorepo.Must(mongorepo.New[thing](ctx, db, mongorepo.Config{Collection: "things"}))
	box := mongooutbox.Must(mongooutbox.New(db, mongooutbox.Config{Source: "things", Collections: []string{"things"}}))
	if _, err := things.Create(ctx, thing{N: 1}, func(ctx context.Context, t *thing) error {
		return box.Publish(ctx, "things.created", t)
	}); err != nil {
		fmt.Println(err)
		return
	}
	relay := outbox.Must(outbox.NewRelay(box, memory.Must(memory.New(memory.Config{})), outbox.RelayConfig{}))
	fmt.Println(relay.Run(ctx))
}
