// Command testing is a small shop whose tests, in main_test.go, are what it is about: the same code runs on memory and in
// virtual time, under every fault that can strike its saga, and against concurrent customers.
//
//	go test -v ./examples/testing
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/memrepo"
	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/sagamem"
)

// Product is what the shop sells.
type Product struct {
	repository.Meta
	Stock int64
}

// Order is the state of the saga that sells a product.
type Order struct{ Product string }

// ErrSoldOut says that there is none left.
var ErrSoldOut = errors.New("sold out")

// Payments charges and refunds cards, once for each key.
type Payments interface {
	Charge(ctx context.Context, key string) error
	Refund(ctx context.Context, key string) error
}

// Shop sells products. All that it depends on is given to it: databases and brokers in main, memory in tests.
type Shop struct {
	Products repository.Repository[Product]
	Payments Payments
}

// Reserve takes one piece.
func (s *Shop) Reserve(ctx context.Context, id string) error {
	_, err := s.Products.Update(ctx, id, func(_ context.Context, p *Product) error {
		if p.Stock == 0 {
			return ErrSoldOut
		}
		p.Stock--
		return nil
	})
	return err
}

// Release gives a piece back.
func (s *Shop) Release(ctx context.Context, id string) error {
	_, err := s.Products.Update(ctx, id, func(_ context.Context, p *Product) error { p.Stock++; return nil })
	return err
}

// Selling is the saga that sells a product: a customer has an hour to confirm.
func (s *Shop) Selling() *saga.Def[Order] {
	return saga.Define("sell", 1,
		saga.Step("reserve", func(ctx context.Context, _ *saga.Call, o *Order) error {
			if err := s.Reserve(ctx, o.Product); errors.Is(err, ErrSoldOut) {
				return saga.Reject(err)
			} else if err != nil {
				return err
			}
			return nil
		}).Compensate(func(ctx context.Context, c *saga.Call, o *Order) error {
			if !c.Certain() {
				return nil // with a database: package barrier, which knows
			}
			return s.Release(ctx, o.Product)
		}),
		saga.Await("confirmed", func(context.Context, *saga.Call, *Order, bool) error { return nil }).Timeout(time.Hour),
		saga.Step("charge", func(ctx context.Context, c *saga.Call, _ *Order) error { return s.Payments.Charge(ctx, c.Key()) }).
			Compensate(func(ctx context.Context, c *saga.Call, _ *Order) error { return s.Payments.Refund(ctx, c.Key()) }),
		saga.Pivot("hand-over", func(context.Context, *saga.Call, *Order) error { return nil }))
}

// Delivered is an event of the carrier's.
type Delivered struct{ Product string }

// Restock handles Delivered.
func (s *Shop) Restock(ctx context.Context, m messaging.Message[Delivered]) error {
	return s.Release(ctx, m.Data.Product)
}

type freeOfCharge struct{}

func (freeOfCharge) Charge(context.Context, string) error { return nil }
func (freeOfCharge) Refund(context.Context, string) error { return nil }

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer) error {
	ctx, stop := context.WithTimeout(ctx, 30*time.Second)
	defer stop()
	shop := &Shop{memrepo.Must(memrepo.New[Product](memrepo.Config{})), freeOfCharge{}}
	lamp, err := shop.Products.Create(ctx, Product{Stock: 1})
	if err != nil {
		return err
	}
	selling := shop.Selling()
	o := saga.Must(saga.New(sagamem.New(), saga.Config{Logger: slog.New(slog.DiscardHandler)}, selling))
	running, end := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- o.Run(running) }()
	for _, id := range []string{"order-1", "order-2"} {
		h, err := selling.SignalWithStart(ctx, o, id, Order{lamp.ID}, "confirmed", true)
		if err == nil {
			_, err = h.Wait(ctx)
		}
		_, _ = fmt.Fprintln(out, id+":", err)
	}
	end()
	return <-ended
}
