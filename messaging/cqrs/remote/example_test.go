package remote_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/cqrs"
	"github.com/sillar-go/sillar/messaging/cqrs/remote"
	"github.com/sillar-go/sillar/messaging/memory"
)

type GetPrice struct{ Product string }

type Price struct{ Cents int }

var ErrNoSuchProduct = errors.New("products: no such product")

func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	broker := memory.Must(memory.New(memory.Config{Source: "products"}))
	defer broker.Close()
	errs := remote.Errors{"no_such_product": ErrNoSuchProduct}

	// The service: a handler as in process.
	price := cqrs.HandlerFunc[GetPrice, Price](func(_ context.Context, q GetPrice) (Price, error) {
		if q.Product != "book" {
			return Price{}, ErrNoSuchProduct
		}
		return Price{Cents: 1995}, nil
	})
	router := messaging.Must(messaging.NewRouter(broker, messaging.RouterConfig{}))
	products := router.Group("products", messaging.GroupConfig{Concurrency: 8})
	remote.Handle(products, "products.price", price, broker, remote.Config{Errors: errs})
	done := make(chan error, 1)
	go func() { done <- router.Run(ctx) }()
	<-router.Running()

	// Its client.
	caller, err := remote.NewCaller(ctx, broker, remote.CallerConfig{Errors: errs})
	if err != nil {
		panic(err)
	}
	defer caller.Close()
	getPrice := remote.Call[GetPrice, Price](caller, "products.price")
	p, err := getPrice.Handle(ctx, GetPrice{"book"})
	fmt.Println(p.Cents, err)
	_, err = getPrice.Handle(ctx, GetPrice{"pen"})
	fmt.Println(errors.Is(err, ErrNoSuchProduct), err)

	cancel()
	<-done
	// Output:
	// 1995 <nil>
	// true remote: products: no such product
}
