package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sillar-go/sillar/breaker/breakertest"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/memory"
	"github.com/sillar-go/sillar/messaging/messagingtest"
	"github.com/sillar-go/sillar/repository/repositorytest"
	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/sagamem"
)

// Thirty customers buy ten pieces while every fifth call of the database fails, half of them after their effect.
// Whatever the seed, no piece is lost and none is sold twice.
func TestNothingIsLostUnderFaults(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			inner, id := newShop(t, 10)
			shop := &Shop{repositorytest.Faulty(inner.Products, seed, 0.2), freeOfCharge{}}
			selling := shop.Selling()
			o := saga.Must(saga.New(sagamem.New(), saga.Config{Logger: quiet}, selling))
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- o.Run(ctx) }()
			var sold atomic.Int64
			var customers sync.WaitGroup
			for i := range 30 {
				customers.Go(func() {
					h, err := selling.SignalWithStart(ctx, o, fmt.Sprint("order-", i), Order{id}, "confirmed", true)
					if err == nil {
						_, err = h.Wait(ctx)
					}
					if err == nil {
						sold.Add(1)
					} else if !errors.Is(err, saga.ErrCompensated) {
						t.Errorf("seed %d: %v", seed, err)
					}
				})
			}
			customers.Wait()
			if left := stock(t, inner, id); sold.Load()+left != 10 {
				t.Errorf("seed %d: %d were sold and %d are left, of 10", seed, sold.Load(), left)
			}
			stop()
			<-ended
		})
	}
}

// Messages come twice, late and in another order, and what is published may have been published before: each piece
// comes back once.
func TestEachReturnCountsOnceUnderFaults(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			shop, id := newShop(t, 10)
			inner := memory.Must(memory.New(memory.Config{Source: "test"}))
			defer inner.Close()
			broker := messagingtest.Faulty(inner, seed, 0.3)
			router := messaging.Must(messaging.NewRouter(broker, messaging.RouterConfig{Logger: quiet}))
			messaging.Handle(router.Group("shop", messaging.GroupConfig{}), "returned", shop.Restock)
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- router.Run(ctx) }()
			<-router.Running()
			for i := range 10 {
				order := fmt.Sprint("order-", i)
				if err := shop.Reserve(ctx, id, order); err != nil {
					t.Fatal(err)
				}
				for broker.Publish(ctx, "returned", Returned{id, order}, messaging.WithID(order)) != nil {
					continue // as an outbox does, until there is an answer
				}
			}
			time.Sleep(time.Minute)
			if left := stock(t, shop, id); left != 10 {
				t.Errorf("seed %d: %d pieces are left, want 10", seed, left)
			}
			stop()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}

// Requests and responses are lost: a client that tries again charges once, because it sends a key.
func TestEachChargeCountsOnceUnderFaults(t *testing.T) {
	var charges sync.Map
	var requests atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		charges.Store(r.Header.Get("Idempotency-Key"), true)
	}))
	defer srv.Close()
	client := &http.Client{Transport: breakertest.Lossy(srv.Client().Transport, 1, 0.3)}
	for i := range 50 {
		for err := breakertest.ErrInjected; err != nil; {
			var res *http.Response
			req, _ := http.NewRequestWithContext(t.Context(), "POST", srv.URL, nil)
			req.Header.Set("Idempotency-Key", fmt.Sprint("order-", i))
			if res, err = client.Do(req); err == nil {
				_ = res.Body.Close()
			}
		}
	}
	n := 0
	charges.Range(func(any, any) bool { n++; return true })
	if n != 50 || requests.Load() <= 50 {
		t.Errorf("%d charges by %d requests, want 50 by more", n, requests.Load())
	}
}
