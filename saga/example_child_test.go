package saga_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/sagamem"
)

// A saga starts another one as a step, by an id of its own, so that a repeated attempt starts it once. The child
// reports its end as a signal. What undoes it is Cancel; so the child waits for the parent before its pivot.
func Example_childSagas() {
	type Trip struct{ Hotel string }
	type Booking struct{ Parent, Hotel string }

	var o *saga.Orchestrator
	var trip *saga.Def[Trip]
	childID := func(c *saga.Call) string { return c.SagaID() + "/hotel" }

	booking := saga.Define("booking", 1,
		saga.Step("reserve", func(_ context.Context, _ *saga.Call, b *Booking) error { b.Hotel = "Sillar Inn"; return nil }).
			Compensate(func(context.Context, *saga.Call, *Booking) error { fmt.Println("hotel: released"); return nil }),
		saga.Step("report", func(ctx context.Context, _ *saga.Call, b *Booking) error {
			return trip.Signal(ctx, o, b.Parent, "booked", b.Hotel)
		}),
		saga.Await("confirmed", func(context.Context, *saga.Call, *Booking, bool) error { return nil }),
		saga.Pivot("book", func(context.Context, *saga.Call, *Booking) error { return nil }),
	)
	trip = saga.Define("trip", 1,
		saga.Step("start-booking", func(ctx context.Context, c *saga.Call, _ *Trip) error {
			_, err := booking.Start(ctx, o, childID(c), Booking{Parent: c.SagaID()})
			return err
		}).Compensate(func(ctx context.Context, c *saga.Call, _ *Trip) error {
			err := o.Cancel(ctx, childID(c))
			if errors.Is(err, saga.ErrNotFound) || errors.Is(err, saga.ErrFinished) { // never begun, or undone by itself
				return nil
			}
			if err != nil {
				return err
			}
			if _, err = booking.Handle(o, childID(c)).Wait(ctx); errors.Is(err, saga.ErrCompensated) {
				return nil
			}
			return err
		}),
		saga.Await("booked", func(_ context.Context, _ *saga.Call, t *Trip, hotel string) error {
			t.Hotel = hotel
			return nil
		}),
		saga.Step("flight", func(_ context.Context, _ *saga.Call, t *Trip) error {
			fmt.Println("trip: no flight to", t.Hotel)
			return saga.Reject(errors.New("sold out"))
		}),
		saga.Pivot("confirm", func(ctx context.Context, c *saga.Call, _ *Trip) error {
			return booking.Signal(ctx, o, childID(c), "confirmed", true)
		}),
	)

	o = saga.Must(saga.New(sagamem.New(), saga.Config{}, trip, booking))
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- o.Run(ctx) }()
	h := saga.Must(trip.Start(ctx, o, "trip-1", Trip{}))
	_, err := h.Wait(ctx)
	fmt.Println(err)
	stop()
	<-done
	// Output:
	// trip: no flight to Sillar Inn
	// hotel: released
	// saga: trip trip-1 is compensated: step flight: sold out
}

// An event may come before the saga that waits for it: SignalWithStart starts the saga then.
func ExampleDef_SignalWithStart() {
	type Order struct{ Paid, Shipped bool }
	def := saga.Define("order", 1,
		saga.Await("paid", func(_ context.Context, _ *saga.Call, o *Order, _ string) error { o.Paid = true; return nil }),
		saga.Await("shipped", func(_ context.Context, _ *saga.Call, o *Order, _ string) error {
			o.Shipped = true
			return nil
		}))
	o := saga.Must(saga.New(sagamem.New(), saga.Config{}, def))
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- o.Run(ctx) }()
	for _, event := range []string{"shipped", "paid"} {
		if _, err := def.SignalWithStart(ctx, o, "order-42", Order{}, event, "event of "+event); err != nil {
			fmt.Println(err)
		}
	}
	fmt.Println(def.Handle(o, "order-42").Wait(ctx))
	stop()
	<-done
	// Output: {true true} <nil>
}
