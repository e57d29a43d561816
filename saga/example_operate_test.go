package saga_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/sagamem"
)

// A saga that waits for a person.
func ExampleDef_Signal() {
	type Approval struct{ By string }
	nothing := func(context.Context, *saga.Call, *Order) error { return nil }
	onApproval := func(_ context.Context, _ *saga.Call, _ *Order, a Approval) error {
		fmt.Println("approved by", a.By)
		return nil
	}
	def := saga.Define[Order]("large-order", 1,
		saga.Step("reserve", nothing).Compensate(nothing),
		saga.Await("approval", onApproval).Timeout(48*time.Hour),
		saga.Pivot("confirm", nothing),
	)
	o := saga.Must(saga.New(sagamem.New(), saga.Config{Logger: slog.New(slog.DiscardHandler)}, def))
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	done := make(chan error)
	go func() { done <- o.Run(ctx) }()

	h, err := def.Start(ctx, o, "order-7", Order{Item: "piano"})
	if err != nil {
		fmt.Println(err)
		return
	}
	// now or later, from any process
	if err := def.Signal(ctx, o, "order-7", "approval", Approval{By: "ana"}); err != nil {
		fmt.Println(err)
	}
	_, err = h.Wait(ctx)
	fmt.Println(err)
	stop()
	fmt.Println(<-done)
	// Output:
	// approved by ana
	// <nil>
	// <nil>
}

// A saga that is stuck waits for an operator, who does by hand what was to be done and says so.
func ExampleOrchestrator_Skip() {
	pay := func(context.Context, *saga.Call, *Order) error { return nil }
	ship := func(context.Context, *saga.Call, *Order) error { return errors.New("the carrier is closed for good") }
	def := saga.Define[Order]("ship-order", 1,
		saga.Pivot("pay", pay),
		saga.Retriable("ship", ship).Retry(2, saga.Exponential(time.Millisecond, time.Millisecond)),
	)
	o := saga.Must(saga.New(sagamem.New(), saga.Config{Logger: slog.New(slog.DiscardHandler)}, def))
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	done := make(chan error)
	go func() { done <- o.Run(ctx) }()

	h, err := def.Start(ctx, o, "order-8", Order{Item: "lamp"})
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = h.Wait(ctx)
	fmt.Println(err)
	stuck, err := o.Stuck(ctx, saga.Filter{})
	fmt.Println(len(stuck), err)
	err = o.Skip(ctx, "order-8", "ship", "ana", "sent with another carrier")
	fmt.Println(err)
	_, err = h.Wait(ctx)
	fmt.Println(err)
	stop()
	fmt.Println(<-done)
	// Output:
	// saga: ship-order order-8 is stuck: step ship: the carrier is closed for good
	// 1 <nil>
	// <nil>
	// <nil>
	// <nil>
}
