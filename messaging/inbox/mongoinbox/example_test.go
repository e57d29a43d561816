package mongoinbox_test

import (
	"context"
	"fmt"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/inbox/mongoinbox"
	"github.com/sillar-go/sillar/messaging/memory"
	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/mongorepo"
)

type Stock struct {
	repository.Meta
	Count int64
}

// The note that a message was applied is part of the write that it causes.
func Example() {
	ctx := context.Background()
	client, err := mongo.Connect(options.Client().ApplyURI("mongodb://localhost"))
	if err != nil {
		fmt.Println(err)
		return
	}
	db := client.Database("shop")
	stock := mongorepo.Must(mongorepo.New[Stock](ctx, db, mongorepo.Config{Collection: "stock"}))
	inbox := mongoinbox.Must(mongoinbox.New(db, mongoinbox.Config{Collections: []string{"stock"}}))
	r := messaging.Must(messaging.NewRouter(memory.Must(memory.New(memory.Config{})), messaging.RouterConfig{}))
	g := r.Group("stock", messaging.GroupConfig{Dedup: inbox})
	messaging.Handle(g, "goods.arrived", func(ctx context.Context, m messaging.Message[int64]) error {
		_, err := stock.Update(ctx, m.Key, func(ctx context.Context, s *Stock) error {
			s.Count += m.Data
			return inbox.Apply(ctx)
		})
		return err
	})
	fmt.Println(r.Run(ctx))
}
