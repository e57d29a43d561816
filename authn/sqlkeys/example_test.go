package sqlkeys_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/authn/sqlkeys"
	"github.com/sillar-go/sillar/repository/sqldb"
	_ "github.com/sillar-go/sillar/repository/sqldb/sqlite" // the driver of sqlite:
)

// Two replicas of an issuer share the keys in a database.
func Example() {
	ctx := context.Background()
	db := sqldb.Must(sqldb.Open(ctx, "sqlite::memory:", sqldb.Config{}))
	defer db.Close()
	store := sqlkeys.Must(sqlkeys.New(db, sqlkeys.Config{Secret: []byte(strings.Repeat("a secret from Vault ", 2))}))
	if err := store.EnsureSchema(ctx); err != nil {
		fmt.Println(err)
		return
	}
	quiet := authn.KeyConfig{Logger: slog.New(slog.DiscardHandler)}
	one, two := authn.Must(authn.NewKeySet(store, quiet)), authn.Must(authn.NewKeySet(store, quiet))
	fmt.Println(string(one.JWKS()) == string(two.JWKS()))

	// Output: true
}
