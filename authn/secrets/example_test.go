package secrets_test

import (
	"context"
	"fmt"
	"os"

	"github.com/sillar-go/sillar/authn/secrets"
)

func ExampleResolver() {
	os.Setenv("EXAMPLE_DSN", "postgres://app:hunter2@db/orders")
	r := secrets.Must(secrets.NewResolver(secrets.Config{})) // with Sources: {"vault": client} also vault://mount/path#key
	dsn, err := r.Get(context.Background(), "env:EXAMPLE_DSN")
	fmt.Println(dsn, err)
	fmt.Println(len(dsn.Reveal()))
	// Output:
	// [REDACTED] <nil>
	// 32
}
