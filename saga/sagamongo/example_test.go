package sagamongo_test

import (
	"context"
	"fmt"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/sagamongo"
)

func Example() {
	ctx := context.Background()
	client, err := mongo.Connect(options.Client().ApplyURI("mongodb://localhost"))
	if err != nil {
		fmt.Println(err)
		return
	}
	store := sagamongo.Must(sagamongo.New(ctx, client.Database("shop"), sagamongo.Config{}))
	ship := saga.Define[string]("ship", 1, saga.Step("pack", func(context.Context, *saga.Call, *string) error {
		return nil
	}))
	o := saga.Must(saga.New(store, saga.Config{}, ship))
	if _, err := ship.Start(ctx, o, "ship-42", "lamp"); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(o.Run(ctx))
}
