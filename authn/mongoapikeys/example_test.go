package mongoapikeys_test

import (
	"context"
	"fmt"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/authn/mongoapikeys"
)

// A key is issued, and listed without its secret.
func Example() {
	ctx := context.Background()
	client, err := mongo.Connect(options.Client().ApplyURI("mongodb://127.0.0.1:27017"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = client.Disconnect(ctx) }()
	store, err := mongoapikeys.New(client.Database("users"), mongoapikeys.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := store.EnsureIndexes(ctx); err != nil {
		fmt.Println(err)
		return
	}
	keys := authn.Must(authn.NewAPIKeys(store, authn.APIKeyConfig{Prefix: "shop"}))
	secret, _, err := keys.Issue(ctx, authn.Subject{ID: "ci", Scopes: []string{"orders:read"}},
		authn.APIKeyOptions{Name: "CI"})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(secret) // show it once: it cannot be read again
	list, err := keys.List(ctx, "ci")
	fmt.Println(list, err)
}
