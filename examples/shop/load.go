package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/sillar-go/sillar/examples/shop/internal/scenario"
	"github.com/sillar-go/sillar/examples/shop/internal/shopclient"
)

// load returns the command that places many orders at a running shop.
func load() *cobra.Command {
	o := &operator{}
	var orders, concurrency int
	cmd := &cobra.Command{Use: "load",
		Short: "Place many orders at a running shop, and say how fast it was and whether the invariants hold",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if orders < 1 || concurrency < 1 {
				return errors.New("--orders and --concurrency must be at least 1")
			}
			if err := drive(cmd.Context(), cmd.OutOrStdout(), o, orders, concurrency); err != nil {
				return err
			}
			return scenario.Invariants(cmd.Context(), scenario.Config{Gateway: o.gateway, Admin: o.name,
				AdminPassword: o.password, Out: cmd.OutOrStdout()})
		}}
	o.register(cmd)
	cmd.Flags().IntVar(&orders, "orders", 1000, "how many orders")
	cmd.Flags().IntVar(&concurrency, "concurrency", 64, "how many at a time")
	return cmd
}

// prepare makes a customer and fills the stock. It returns the customer, with the name that is part of each key.
func prepare(ctx context.Context, o *operator, orders int) (customer *shopclient.Client, name string, err error) {
	name = "load-" + uuid.NewString()[:8]
	if _, err := shopclient.Anyone(o.gateway, name).Want(ctx, 201, "POST", "/users/api/v1/users",
		map[string]string{"username": name, "email": name + "@example.com", "password": "a fine password"}); err != nil {
		return nil, "", err
	}
	admin, err := shopclient.Login(ctx, o.gateway, o.name, o.password, name)
	if err != nil {
		return nil, "", err
	}
	if customer, err = shopclient.Login(ctx, o.gateway, name, "a fine password", name); err != nil {
		return nil, "", err
	}
	if _, err := admin.Want(ctx, 200, "PUT", "/inventory/api/v1/inventory/prod-lamp",
		map[string]int{"on_hand": 10 * orders}); err != nil {
		return nil, "", fmt.Errorf("fill the stock: %w", err)
	}
	return customer, name, nil
}

// timings are how long orders took, altogether and in the present part of all orders.
type timings struct {
	out  io.Writer
	part int // how many orders are a part, which gets a line of its own

	mu    sync.Mutex
	begin time.Time // of the part
	all   []time.Duration
}

func (t *timings) add(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all = append(t.all, d)
	if n := len(t.all); n%t.part == 0 {
		fmt.Fprintf(t.out, "orders %d to %d: %s\n", n-t.part+1, n, summary(t.all[n-t.part:], time.Since(t.begin)))
		t.begin = time.Now()
	}
}

// summary says how many orders a second there were and how long they took.
func summary(took []time.Duration, total time.Duration) string {
	took = slices.Sorted(slices.Values(took))
	at := func(p float64) time.Duration { return took[int(p*float64(len(took)-1))].Round(time.Millisecond) }
	return fmt.Sprintf("%.0f a second; median %v, 95 %% %v, 99 %% %v, slowest %v", float64(len(took))/total.Seconds(),
		at(0.5), at(0.95), at(0.99), at(1))
}

// drive places orders; every tenth uses a declined card.
func drive(ctx context.Context, out io.Writer, o *operator, orders, concurrency int) error {
	customer, name, err := prepare(ctx, o, orders)
	if err != nil {
		return err
	}
	var (
		next, limited, failed, open atomic.Int64
		wg                          sync.WaitGroup
		begin                       = time.Now()
		took                        = timings{out: out, part: max(orders/10, 100), begin: begin}
	)
	for range concurrency {
		wg.Go(func() {
			for n := next.Add(1); n <= int64(orders) && ctx.Err() == nil; n = next.Add(1) {
				method := "pm_card_visa"
				if n%10 == 0 {
					method = "pm_card_declined"
				}
				start := time.Now()
				a, err := customer.Do(ctx, "POST", "/orders/api/v1/orders", map[string]any{
					"items": []map[string]any{{"product_id": "prod-lamp", "quantity": 1}}, "payment_method": method},
					"Idempotency-Key", fmt.Sprint(name, "-", n))
				switch {
				case err != nil:
					failed.Add(1)
				case a.Status == 429:
					limited.Add(1)
				case a.Status == 202:
					open.Add(1)
				case a.Status != 201:
					failed.Add(1)
				}
				took.add(time.Since(start))
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	total := time.Since(begin)
	fmt.Fprintf(out, "%d orders in %v: %s\n", orders, total.Round(time.Millisecond), summary(took.all, total))
	fmt.Fprintf(out, "%d still under way when answered, %d rejected by the rate limit, %d failed\n", open.Load(),
		limited.Load(), failed.Load())
	if failed.Load() > 0 {
		return fmt.Errorf("%d of %d orders failed", failed.Load(), orders)
	}
	return nil
}
