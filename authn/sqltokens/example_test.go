package sqltokens_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/authn/sqltokens"
	"github.com/sillar-go/sillar/repository/sqldb"
)

func Example() {
	dir, err := os.MkdirTemp("", "tokens")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()
	db, err := sqldb.Open(ctx, "sqlite:"+filepath.Join(dir, "users.db"), sqldb.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer db.Close()
	tokens := sqltokens.Must(sqltokens.New(db, sqltokens.Config{}))
	if err := tokens.EnsureSchema(ctx); err != nil {
		fmt.Println(err)
		return
	}
	keys := authn.Must(authn.NewKeySet(authn.NewFileKeys(filepath.Join(dir, "keys.json")), authn.KeyConfig{}))
	issuer := authn.Must(authn.NewIssuer(keys, tokens, authn.IssuerConfig{Issuer: "https://shop"}))

	pair, err := issuer.Issue(ctx, authn.Subject{ID: "ana"})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := issuer.Revoke(ctx, pair.RefreshToken); err != nil {
		fmt.Println(err)
		return
	}
	_, err = issuer.Refresh(ctx, pair.RefreshToken, "")
	fmt.Println(errors.Is(err, authn.ErrRefresh))
	// Output: true
}
