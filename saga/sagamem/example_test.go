package sagamem_test

import (
	"context"
	"fmt"

	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/sagamem"
)

// What one orchestrator has started another one finishes: they share the store.
func Example() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	store := sagamem.New()
	count := saga.Define[int]("count", 1, saga.Step("add", func(_ context.Context, _ *saga.Call, n *int) error {
		*n++
		return nil
	}))
	web := saga.Must(saga.New(store, saga.Config{}, count)) // it does not run
	worker := saga.Must(saga.New(store, saga.Config{}, count))
	done := make(chan error, 1)
	go func() { done <- worker.Run(ctx) }()

	h, err := count.Start(ctx, web, "count-1", 41)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(h.Wait(ctx))
	stop()
	<-done
	// Output: 42 <nil>
}
