package vaultkeys_test

import (
	"fmt"
	"net/http"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/authn/secrets/vault"
	"github.com/sillar-go/sillar/authn/vaultkeys"
)

// Every replica signs with the same keys, which are on no disk.
func Example() {
	client := vault.Must(vault.New(vault.Config{Address: "https://vault.example:8200"}))
	defer client.Close()
	store := vaultkeys.Must(vaultkeys.New(client, "secret", "shop/signing-keys"))
	keys, err := authn.NewKeySet(store, authn.KeyConfig{})
	if err != nil {
		fmt.Println(err)
		return
	}
	http.Handle("GET /.well-known/jwks.json", keys.Handler())
}
