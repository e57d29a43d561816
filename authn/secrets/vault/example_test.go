package vault_test

import (
	"context"
	"fmt"
	"net/http/httptest"

	"github.com/sillar-go/sillar/authn/secrets/vault"
)

func Example() {
	srv := httptest.NewServer(newServer()) // stands for a Vault
	defer srv.Close()
	ctx := context.Background()
	v, err := vault.New(vault.Config{Address: srv.URL, Auth: vault.AppRole("r", "s-hush")})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer v.Close()
	version, err := v.Write(ctx, "secret", "orders/db", map[string]any{"password": "hunter2"}, 0)
	fmt.Println(version, err)
	password, err := v.Get(ctx, "vault://secret/orders/db#password")
	fmt.Println(password, password.Reveal() == "hunter2", err)
	// Output:
	// 1 <nil>
	// [REDACTED] true <nil>
}
