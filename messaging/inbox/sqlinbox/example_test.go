package sqlinbox_test

import (
	"context"
	"fmt"

	"github.com/sillar-go/sillar/messaging/inbox/sqlinbox"
	"github.com/sillar-go/sillar/repository/sqldb"
	_ "github.com/sillar-go/sillar/repository/sqldb/sqlite"
)

// A message that comes twice is applied once. A router does this for a group whose GroupConfig.Dedup is the inbox.
func Example() {
	ctx := context.Background()
	db := sqldb.Must(sqldb.Open(ctx, "sqlite::memory:", sqldb.Config{}))
	defer db.Close()
	inbox := sqlinbox.Must(sqlinbox.New(db, sqlinbox.Config{}))
	if err := inbox.EnsureSchema(ctx); err != nil {
		fmt.Println(err)
		return
	}
	for range 2 {
		dup, err := inbox.Once(ctx, "billing", "message-1", func(context.Context) error {
			fmt.Println("applied")
			return nil
		})
		fmt.Println("duplicate:", dup, err)
	}
	// Output:
	// applied
	// duplicate: false <nil>
	// duplicate: true <nil>
}
