package mongorepo_test

import (
	"context"
	"fmt"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/mongorepo"
)

// It needs a server, so it is compiled and not run.
func Example() {
	type user struct {
		repository.Meta
		Email string
	}
	ctx := context.Background()
	client, err := mongo.Connect(options.Client().ApplyURI("mongodb://127.0.0.1:27017/"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = client.Disconnect(ctx) }()
	users := mongorepo.Must(mongorepo.New[user](ctx, client.Database("users"), mongorepo.Config{Collection: "users",
		Unique: [][]string{{"email"}}}))
	ana, err := users.Create(ctx, user{Email: "ana@example.com"})
	if err != nil {
		fmt.Println(err)
		return
	}
	ana, err = users.Update(ctx, ana.ID, func(_ context.Context, u *user) error {
		u.Email = "ana@example.org"
		return nil
	})
	fmt.Println(ana.Version, err)
}
