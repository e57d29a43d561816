package barrier_test

import (
	"context"
	"fmt"

	"github.com/sillar-go/sillar/repository/sqldb"
	"github.com/sillar-go/sillar/saga/barrier"
)

// A participant that gets each message more than once, and the compensation of an action that never came.
func ExampleBarrier_Do() {
	ctx := context.Background()
	db, err := sqldb.Open(ctx, "sqlite::memory:", sqldb.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer db.Close()
	b := barrier.Must(barrier.New(db, barrier.Config{}))
	if err := b.EnsureSchema(ctx); err != nil { // programs do this with package migrate
		fmt.Println(err)
		return
	}
	message := func(key, what string) { // key is saga.Call.Key of who sends it
		err := db.InTx(ctx, func(ctx context.Context) error {
			return b.Do(ctx, key, func(context.Context) error { fmt.Println(what); return nil })
		})
		if err != nil {
			fmt.Println(err)
		}
	}
	message("order-42/reserve/do", "reserved")
	message("order-42/reserve/do", "reserved twice")
	message("order-43/reserve/undo", "released what was never reserved")
	message("order-43/reserve/do", "reserved too late")
	// Output:
	// reserved
	// barrier: the compensation came before the action: order-43/reserve/do
}
