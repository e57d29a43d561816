package mongotokens_test

import (
	"context"
	"fmt"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/authn/mongotokens"
)

func Example() {
	ctx := context.Background()
	client, err := mongo.Connect(options.Client().ApplyURI("mongodb://127.0.0.1:27017"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = client.Disconnect(ctx) }()
	tokens, err := mongotokens.New(client.Database("users"), mongotokens.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := tokens.EnsureIndexes(ctx); err != nil {
		fmt.Println(err)
		return
	}
	keys := authn.Must(authn.NewKeySet(authn.NewFileKeys("keys.json"), authn.KeyConfig{}))
	issuer := authn.Must(authn.NewIssuer(keys, tokens, authn.IssuerConfig{Issuer: "https://shop"}))
	pair, err := issuer.Issue(ctx, authn.Subject{ID: "ana"}) // its refresh token is good on every replica
	fmt.Println(pair, err)
}
