package mongokeys_test

import (
	"context"
	"fmt"
	"os"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/authn/mongokeys"
)

// Every replica of an issuer opens the same keys.
func Example() {
	ctx := context.Background()
	client, err := mongo.Connect(options.Client().ApplyURI("mongodb://127.0.0.1:27017"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = client.Disconnect(ctx) }()
	store, err := mongokeys.New(client.Database("users"), mongokeys.Config{Secret: []byte(os.Getenv("KEYS_SECRET"))})
	if err != nil {
		fmt.Println(err) // also when the secret is shorter than 32 bytes
		return
	}
	keys, err := authn.NewKeySet(store, authn.KeyConfig{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(string(keys.JWKS()))
}
