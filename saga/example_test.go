package saga_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/sagamem"
)

type Order struct {
	Item     string
	Reserved bool
}

func Example() {
	reserve := func(_ context.Context, c *saga.Call, o *Order) error {
		fmt.Println("reserve", o.Item, "under", c.Key())
		o.Reserved = true
		return nil
	}
	release := func(_ context.Context, _ *saga.Call, o *Order) error {
		fmt.Println("release", o.Item)
		o.Reserved = false
		return nil
	}
	pay := func(context.Context, *saga.Call, *Order) error {
		return saga.Reject(errors.New("card declined"))
	}
	confirm := func(context.Context, *saga.Call, *Order) error { return nil }

	placeOrder := saga.Define[Order]("place-order", 1,
		saga.Step("reserve-inventory", reserve).Compensate(release),
		saga.Step("process-payment", pay),
		saga.Pivot("confirm-order", confirm),
	)
	o, err := saga.New(sagamem.New(), saga.Config{Logger: slog.New(slog.DiscardHandler)}, placeOrder)
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	done := make(chan error)
	go func() { done <- o.Run(ctx) }()

	h, err := placeOrder.Start(ctx, o, "order-42", Order{Item: "lamp"})
	if err != nil {
		fmt.Println(err)
		return
	}
	order, err := h.Wait(ctx)
	fmt.Println(errors.Is(err, saga.ErrCompensated), order.Reserved)
	fmt.Println(err)

	stop()
	fmt.Println(<-done)
	// Output:
	// reserve lamp under order-42/reserve-inventory/do
	// release lamp
	// true false
	// saga: place-order order-42 is compensated: step process-payment: card declined
	// <nil>
}

func ExampleDef_Mermaid() {
	nothing := func(context.Context, *saga.Call, *Order) error { return nil }
	def := saga.Define[Order]("place-order", 1, saga.Step("reserve", nothing).Compensate(nothing),
		saga.Pivot("confirm", nothing))
	fmt.Print(def.Mermaid())
	// Output:
	// flowchart LR
	//     s0["reserve"]
	//     s0u>"undo reserve"]
	//     s0 -.-> s0u
	//     s1{{"confirm"}}
	//     s0 --> s1
}
