// Command testing is a small shop whose tests are what it is about: in memory, in virtual time and under faults.
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
	Holds map[string]bool // by order: whether a piece is held for it; false once it was given back
}

// Order is the state of the saga that sells a product.
type Order struct{ Product string }

// Errors of Reserve.
var (
	ErrSoldOut = errors.New("sold out")
	ErrTooLate = errors.New("the order was given up before")
)

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

// Reserve holds one piece for an order, once, and not after Release.
func (s *Shop) Reserve(ctx context.Context, id, order string) error {
	_, err := s.Products.Update(ctx, id, func(_ context.Context, p *Product) error {
		switch held, known := p.Holds[order]; {
		case known && !held:
			return ErrTooLate
		case known:
			return nil
		case p.Stock == 0:
			return ErrSoldOut
		}
		p.hold(order, true, -1)
		return nil
	})
	return err
}

// Release gives the piece of an order back, once, and sees that a reservation that is still on its way comes too late.
func (s *Shop) Release(ctx context.Context, id, order string) error {
	_, err := s.Products.Update(ctx, id, func(_ context.Context, p *Product) error {
		if held, known := p.Holds[order]; held {
			p.hold(order, false, +1)
		} else if !known {
			p.hold(order, false, 0)
		}
		return nil
	})
	return err
}

func (p *Product) hold(order string, held bool, pieces int64) {
	if p.Holds == nil {
		p.Holds = map[string]bool{}
	}
	p.Holds[order] = held
	p.Stock += pieces
}

// Selling is the saga that sells a product: a customer has an hour to confirm.
func (s *Shop) Selling() *saga.Def[Order] {
	return saga.Define("sell", 1,
		saga.Step("reserve", func(ctx context.Context, c *saga.Call, o *Order) error {
			err := s.Reserve(ctx, o.Product, c.SagaID())
			if errors.Is(err, ErrSoldOut) || errors.Is(err, ErrTooLate) {
				return saga.Reject(err)
			}
			return err
		}).Compensate(func(ctx context.Context, c *saga.Call, o *Order) error {
			return s.Release(ctx, o.Product, c.SagaID())
		}),
		saga.Await("confirmed", func(context.Context, *saga.Call, *Order, bool) error { return nil }).Timeout(time.Hour),
		saga.Step("charge", func(ctx context.Context, c *saga.Call, _ *Order) error {
			return s.Payments.Charge(ctx, c.Key())
		}).
			Compensate(func(ctx context.Context, c *saga.Call, _ *Order) error { return s.Payments.Refund(ctx, c.Key()) }),
		saga.Pivot("hand-over", func(context.Context, *saga.Call, *Order) error { return nil }))
}

// Returned is an event of the carrier's.
type Returned struct{ Product, Order string }

// Restock handles Returned.
func (s *Shop) Restock(ctx context.Context, m messaging.Message[Returned]) error {
	return s.Release(ctx, m.Data.Product, m.Data.Order)
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
