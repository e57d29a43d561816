package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sillar-go/sillar/examples/shop/internal/scenario"
	"github.com/sillar-go/sillar/internal/testenv"
)

// Orders go on while services are killed with SIGKILL, one after the other, anywhere in their work. A client that asks
// again with the same Idempotency-Key gets one order; in the end money, stock and sagas agree, and every order has
// notified its customer each thing once.
func TestKilledOverAndOver(t *testing.T) {
	const orders, clients, kills = 120, 6, 20
	broker, mongo := brokerURL(t), testenv.Mongo(t)
	f := startFleet(t, broker, mongo)
	gateway := f.at("gateway")
	token := signIn(t, gateway, "ana")
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()

	var (
		mu   sync.Mutex
		ids  = map[string]int{}
		next int
		wg   sync.WaitGroup
	)
	for range clients {
		wg.Go(func() {
			for {
				mu.Lock()
				n := next
				next++
				mu.Unlock()
				if n >= orders {
					return
				}
				id, err := place(ctx, token, gateway, n)
				if err != nil {
					t.Errorf("order %d: %v", n, err)
					return
				}
				mu.Lock()
				ids[id]++
				mu.Unlock()
			}
		})
	}
	placed := make(chan struct{})
	go func() { wg.Wait(); close(placed) }()
	victims := []string{"orders", "payments", "inventory", "notifications", "orders", "products", "users", "notifications",
		"gateway"}
	killed := 0
	for going := true; going || killed < kills; killed++ {
		name := victims[rand.N(len(victims))]
		if err := f.processes[name].stop(syscall.SIGKILL); err == nil {
			t.Errorf("%s was not killed", name)
		}
		f.start(name)
		select {
		case <-placed:
			going = false
		case <-time.After(200*time.Millisecond + rand.N(time.Second)):
		case <-ctx.Done():
			t.Fatalf("the orders do not come to an end: %d of %d", len(ids), orders)
		}
	}
	t.Logf("%d orders, %d kills", orders, killed)
	for _, p := range f.all() {
		ready(t, p, f.at(p.name))
	}
	<-placed
	if len(ids) != orders {
		t.Errorf("%d orders for %d keys", len(ids), orders)
	}
	time.Sleep(2 * time.Second) // breakers close
	if err := scenario.Invariants(ctx, scenario.Config{Gateway: gateway, Admin: "admin", AdminPassword: "admin-password",
		Out: t.Output()}); err != nil {
		t.Fatal(err)
	}
	reported := awaitNotified(t, ctx, token, gateway, ids, time.Minute)
	for what, n := range reported {
		if n != 1 {
			t.Errorf("%s: %d notifications", what, n)
		}
	}
	for _, p := range f.all() {
		if err := p.stop(syscall.SIGTERM); err != nil {
			t.Errorf("%s, on SIGTERM: %v", p.name, err)
		}
	}
}

// place asks until there is an answer that is final. Every fifth card is declined.
func place(ctx context.Context, token, gateway string, n int) (id string, err error) {
	card := "pm_card_visa"
	if n%5 == 0 {
		card = "pm_card_declined"
	}
	body := fmt.Sprintf(`{"items":[{"product_id":"prod-mug","quantity":1}],"payment_method":%q}`, card)
	for {
		code, order, err := send(ctx, token, "POST", gateway+"/orders/api/v1/orders", body, "Idempotency-Key",
			fmt.Sprint("kill-", n))
		switch {
		case ctx.Err() != nil:
			return "", ctx.Err()
		case err == nil && (code == 200 || code == 201 || code == 202):
			return fmt.Sprint(order["id"]), nil
		case err == nil && code != 429 && code < 500:
			return "", fmt.Errorf("%d %v", code, order)
		}
		time.Sleep(50*time.Millisecond + rand.N(300*time.Millisecond))
	}
}

// awaitNotified waits until each customer was notified that the order was placed, and that it was paid or cancelled.
func awaitNotified(t *testing.T, ctx context.Context, token, gateway string, ids map[string]int,
	patience time.Duration) map[string]int {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(500 * time.Millisecond) {
		reported := notified(t, ctx, token, gateway)
		missing := unnotified(reported, ids)
		if len(missing) == 0 {
			return reported
		}
		if time.Now().After(end) {
			t.Fatalf("%d notifications are missing, such as %v", len(missing), missing[:min(len(missing), 5)])
		}
	}
}

// unnotified lists what no customer was notified of: that an order was placed, and that it was paid or cancelled.
func unnotified(reported, ids map[string]int) (missing []string) {
	for id := range ids {
		if reported[id+" orders.created"] == 0 {
			missing = append(missing, id+" orders.created")
		}
		if reported[id+" orders.paid"]+reported[id+" orders.cancelled"] == 0 {
			missing = append(missing, id+" orders.paid or .cancelled")
		}
	}
	return missing
}

// notified counts the notifications about each order.
func notified(t *testing.T, ctx context.Context, token, gateway string) map[string]int {
	t.Helper()
	reported := map[string]int{}
	for after := ""; ; {
		code, page, err := send(ctx, token, "GET", gateway+"/notifications/api/v1/notifications?limit=100&after="+
			url.QueryEscape(after), "")
		if err != nil || code != 200 {
			t.Fatalf("notifications: %d %v %v", code, page, err)
		}
		items, _ := page["items"].([]any)
		for _, i := range items {
			n, _ := i.(map[string]any)
			if id, _ := n["order_id"].(string); id != "" {
				reported[id+" "+strings.TrimSpace(fmt.Sprint(n["event"]))]++
			}
		}
		if after, _ = page["next"].(string); after == "" {
			return reported
		}
	}
}
