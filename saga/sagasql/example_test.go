package sagasql_test

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/sillar-go/sillar/repository/sqldb"
	_ "github.com/sillar-go/sillar/repository/sqldb/sqlite"
	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/sagasql"
)

// A saga begins with the transaction that asks for it, or not at all; its history is kept beside it.
func Example() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	db := sqldb.Must(sqldb.Open(ctx, "sqlite::memory:", sqldb.Config{}))
	defer db.Close()
	store := sagasql.Must(sagasql.New(db, sagasql.Config{History: true}))
	if err := store.EnsureSchema(ctx); err != nil {
		fmt.Println(err)
		return
	}
	greet := saga.Define[string]("greet", 1, saga.Step("say", func(_ context.Context, _ *saga.Call, name *string) error {
		fmt.Println("hello,", *name)
		return nil
	}))
	o := saga.Must(saga.New(store, saga.Config{Logger: slog.New(slog.DiscardHandler)}, greet))
	done := make(chan error, 1)
	go func() { done <- o.Run(ctx) }()

	var h *saga.Handle[string]
	if err := db.InTx(ctx, func(ctx context.Context) (err error) {
		h, err = greet.Start(ctx, o, "greet-ana", "Ana")
		return err // nil: the saga begins with this commit
	}); err != nil {
		fmt.Println(err)
		return
	}
	if _, err := h.Wait(ctx); err != nil {
		fmt.Println(err)
		return
	}
	changes, err := store.History(ctx, "greet-ana")
	fmt.Println(changes[len(changes)-1].Status, err)
	stop()
	<-done
	// Output:
	// hello, Ana
	// COMPLETED <nil>
}
