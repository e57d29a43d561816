package sqldb_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/sillar-go/sillar/repository/sqldb"
)

// What takes part in a transaction gets it from the context; when a function fails, nothing of it stays.
func ExampleDB_InTx() {
	ctx := context.Background()
	db := sqldb.Must(sqldb.Open(ctx, "sqlite::memory:", sqldb.Config{})) // or postgres://...
	defer db.Close()
	if err := db.Exec(ctx,
		"CREATE TABLE accounts (name TEXT PRIMARY KEY, cents INTEGER NOT NULL); INSERT INTO accounts VALUES ('ana', "+
			"500), ('ben', 0);"); err != nil {
		fmt.Println(err)
		return
	}
	poor := errors.New("not enough")
	move := func(cents int) error {
		return db.InTx(ctx, func(ctx context.Context) error {
			q := db.Querier(ctx)
			if _, err := q.Exec(ctx, "UPDATE accounts SET cents = cents + $1 WHERE name = 'ben'", cents); err != nil {
				return err
			}
			n, err := q.Exec(ctx, "UPDATE accounts SET cents = cents - $1 WHERE name = 'ana' AND cents >= $1", cents)
			if err == nil && n == 0 {
				err = poor
			}
			return err
		})
	}
	fmt.Println(move(300))
	fmt.Println(move(300))
	var ben int
	err := db.Querier(ctx).QueryRow(ctx, "SELECT cents FROM accounts WHERE name = 'ben'").Scan(&ben)
	fmt.Println(ben, err)
	// Output:
	// <nil>
	// not enough
	// 300 <nil>
}
