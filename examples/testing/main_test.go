package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/memory"
	"github.com/sillar-go/sillar/repository/memrepo"
	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/sagamem"
	"github.com/sillar-go/sillar/saga/sagatest"
)

var quiet = slog.New(slog.DiscardHandler)

func newShop(t *testing.T, stock int64) (*Shop, string) {
	t.Helper()
	shop := &Shop{memrepo.Must(memrepo.New[Product](memrepo.Config{})), freeOfCharge{}}
	p, err := shop.Products.Create(t.Context(), Product{Stock: stock})
	if err != nil {
		t.Fatal(err)
	}
	return shop, p.ID
}

func stock(t *testing.T, s *Shop, id string) int64 {
	t.Helper()
	p, err := s.Products.Get(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	return p.Stock
}

func TestProgramOutput(t *testing.T) {
	var out strings.Builder
	if err := run(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	const want = "order-1: <nil>\norder-2: saga: sell order-2 is compensated: step reserve: sold out\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", &out, want)
	}
}

// Concurrent customers: the repository in memory keeps the promises of the one on PostgreSQL.
func TestTheLastOneIsSoldOnce(t *testing.T) {
	shop, id := newShop(t, 3)
	var sold atomic.Int64
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			switch err := shop.Reserve(t.Context(), id, fmt.Sprint("order-", i)); {
			case err == nil:
				sold.Add(1)
			case !errors.Is(err, ErrSoldOut):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if sold.Load() != 3 || stock(t, shop, id) != 0 {
		t.Errorf("%d were sold, %d are left, want 3 and 0", sold.Load(), stock(t, shop, id))
	}
}

// Every schedule of up to two faults: crashes, stalls, lost answers, duplicates, refusals, and a customer who never
// confirms. The definition's own budgets and timeouts are what is explored.
func TestSellingSurvivesEveryFault(t *testing.T) {
	shop, _ := newShop(t, 1)
	sagatest.Explore(t, shop.Selling(), sagatest.ExploreConfig{Depth: 1})
}

// An hour passes at once in the virtual time of testing/synctest.
func TestAnHourWithoutAConfirmationReleasesTheStock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shop, id := newShop(t, 1)
		selling := shop.Selling()
		o := saga.Must(saga.New(sagamem.New(), saga.Config{Logger: quiet}, selling))
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- o.Run(ctx) }()
		begin := time.Now()
		h, err := selling.Start(ctx, o, "order-1", Order{id})
		if err == nil {
			_, err = h.Wait(ctx)
		}
		if took := time.Since(begin); !errors.Is(err, saga.ErrAwaitTimeout) || took < time.Hour || stock(t, shop, id) != 1 {
			t.Errorf("after %v: %v, %d in stock; want ErrAwaitTimeout after an hour, and 1", took, err, stock(t, shop, id))
		}
		stop()
		<-ended
	})
}

// The broker in memory delivers, retries and gives up as RabbitMQ does.
func TestAnEventIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shop, id := newShop(t, 1)
		if err := shop.Reserve(t.Context(), id, "order-1"); err != nil {
			t.Fatal(err)
		}
		broker := memory.Must(memory.New(memory.Config{Source: "test"}))
		defer broker.Close()
		router := messaging.Must(messaging.NewRouter(broker, messaging.RouterConfig{Logger: quiet}))
		group := router.Group("shop", messaging.GroupConfig{Retry: messaging.Retry{Attempts: 3,
			Backoff: messaging.Constant(time.Millisecond)}})
		applied := make(chan int, 1)
		messaging.Handle(group, "returned", func(ctx context.Context, m messaging.Message[Returned]) error {
			if m.Attempt < 3 {
				return errors.New("the database is down")
			}
			err := shop.Restock(ctx, m)
			applied <- m.Attempt
			return err
		})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- router.Run(ctx) }()
		synctest.Wait() // the group has subscribed
		if err := broker.Publish(ctx, "returned", Returned{id, "order-1"}); err != nil {
			t.Fatal(err)
		}
		if attempt := <-applied; attempt != 3 || stock(t, shop, id) != 1 {
			t.Errorf("applied at attempt %d, %d in stock, want 3 and 1", attempt, stock(t, shop, id))
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
