// Package scenario runs a demonstration against a running shop, through its gateway alone, and checks the
// invariants.
package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/sillar-go/sillar/examples/shop/internal/shopclient"
)

// Config says against which shop the scenario is played.
type Config struct {
	// Gateway is the address of the gateway.
	Gateway string
	// Admin and AdminPassword are an administrator's.
	Admin, AdminPassword string
	// Out receives the report.
	Out io.Writer
	// Logs returns the log lines of all services, where they can be had: they are searched for the correlation id.
	Logs func() ([]byte, error)
	// Faults says that the payment processor may be broken for a while.
	Faults bool
}

// play is a scenario under way.
type play struct {
	Config
	customer, admin *shopclient.Client
	correlation     string
	step            int
	product         product
}

type product struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	PriceCents int64  `json:"price_cents"`
}

type order struct {
	ID         string `json:"id"`
	Status     string `json:"status"`
	TotalCents int64  `json:"total_cents"`
	Reason     string `json:"reason"`
}

// Run plays the scenario, and returns the first thing that is not as it must be.
func Run(ctx context.Context, cfg Config) error {
	p := &play{Config: cfg, correlation: "demo-" + uuid.NewString()[:8]}
	acts := []struct {
		title string
		act   func(context.Context) error
	}{
		{"A customer signs up and signs in", p.signUp},
		{"An order is placed and paid, and the customer is notified", p.happy},
		{"The same request again is the same order", p.again},
		{"A declined card: the saga compensates", p.declined},
		{"An order exceeds the stock", p.outOfStock},
		{"Bad input is answered with a problem that names the field", p.badInput},
		{"An order is cancelled after it was paid", p.cancelled},
		{"The payment service fails, a breaker opens and closes again", p.broken},
		{"One correlation id through all services", p.traced},
		{"Invariants", p.invariants},
	}
	for _, a := range acts {
		if a.title == acts[7].title && !cfg.Faults || a.title == acts[8].title && cfg.Logs == nil {
			continue
		}
		p.step++
		p.say("\n%d. %s", p.step, a.title)
		start := time.Now()
		if err := a.act(ctx); err != nil {
			p.say("   FAILED: %v", err)
			return fmt.Errorf("%s: %w", strings.ToLower(a.title), err)
		}
		p.say("   done in %d ms", time.Since(start).Milliseconds())
	}
	return nil
}

func (p *play) say(format string, args ...any) { fmt.Fprintf(p.Out, format+"\n", args...) }

func euros(cents int64) string { return fmt.Sprintf("%d.%02d €", cents/100, cents%100) }

func (p *play) signUp(ctx context.Context) error {
	anyone := shopclient.Anyone(p.Gateway, p.correlation)
	name := "demo-" + uuid.NewString()[:8]
	if _, err := anyone.Want(ctx, 201, "POST", "/users/api/v1/users", map[string]string{"username": name,
		"email": name + "@example.com", "password": "a fine password"}); err != nil {
		return err
	}
	var err error
	if p.customer, err = shopclient.Login(ctx, p.Gateway, name, "a fine password", p.correlation); err != nil {
		return err
	}
	if p.admin, err = shopclient.Login(ctx, p.Gateway, p.Admin, p.AdminPassword, "demo-admin"); err != nil {
		return err
	}
	me, err := p.customer.Want(ctx, 200, "GET", "/users/users/me", nil)
	if err != nil {
		return err
	}
	p.say("   %s is in, as %s", me.Field("username"), me.Field("id"))
	if _, err := anyone.Want(ctx, 401, "GET", "/orders/api/v1/orders", nil); err != nil {
		return err
	}
	if _, err := p.customer.Want(ctx, 403, "GET", "/users/admin/users", nil); err != nil {
		return err
	}
	p.say("   without a token: 401; without the role: 403")
	// The catalogue reaches inventory as an event.
	p.product, err = shopclient.Until(ctx, "a product in stock", func() (product, bool, error) {
		a, err := anyone.Want(ctx, 200, "GET", "/products/api/v1/products?limit=50", nil)
		if err != nil {
			return product{}, false, err
		}
		var list struct{ Items []product }
		if err := a.Into(&list); err != nil {
			return product{}, false, err
		}
		for _, pr := range list.Items {
			if s, err := p.stock(ctx, pr.ID); err == nil && s.OnHand-s.Reserved >= 10 {
				return pr, true, nil
			}
		}
		return product{}, false, nil
	})
	return err
}

func (p *play) happy(ctx context.Context) error {
	before, err := p.stock(ctx, p.product.ID)
	if err != nil {
		return err
	}
	_, o, err := p.place(ctx, 2, "pm_card_visa", "Idempotency-Key", p.correlation+"-1")
	if err != nil {
		return err
	}
	if o, err = p.settled(ctx, o.ID); err != nil {
		return err
	}
	p.say("   two of %q for %s: %s", p.product.Name, euros(o.TotalCents), o.Status)
	if _, err := p.saga(ctx, o.ID, "COMPLETED"); err != nil {
		return err
	}
	if o.Status != "paid" || o.TotalCents != 2*p.product.PriceCents {
		return fmt.Errorf("the order is %+v, want it paid, at twice %d", o, p.product.PriceCents)
	}
	if err := p.notified(ctx, o.ID, "orders.paid"); err != nil {
		return err
	}
	after, err := p.stock(ctx, p.product.ID)
	if err != nil {
		return err
	}
	p.say("   stock: %d, before %d", after.OnHand, before.OnHand)
	if after.OnHand != before.OnHand-2 {
		return fmt.Errorf("stock is %d after an order of 2 from %d", after.OnHand, before.OnHand)
	}
	return nil
}

func (p *play) again(ctx context.Context) error {
	_, first, err := p.place(ctx, 2, "pm_card_visa", "Idempotency-Key", p.correlation+"-1")
	if err != nil {
		return err
	}
	_, second, err := p.place(ctx, 2, "pm_card_visa", "Idempotency-Key", p.correlation+"-1")
	if err != nil {
		return err
	}
	if first.ID != second.ID {
		return fmt.Errorf("two orders of one Idempotency-Key: %s and %s", first.ID, second.ID)
	}
	p.say("   the same key: order %s, both times", first.ID)
	a, _, err := p.place(ctx, 3, "pm_card_visa", "Idempotency-Key", p.correlation+"-1")
	if a.Status != 422 {
		return fmt.Errorf("the same key with another body: status %d, want 422 (%v)", a.Status, err)
	}
	p.say("   the same key with another body: 422")
	return nil
}

func (p *play) declined(ctx context.Context) error {
	before, err := p.stock(ctx, p.product.ID)
	if err != nil {
		return err
	}
	_, o, err := p.place(ctx, 1, "pm_card_declined")
	if err != nil {
		return err
	}
	if o, err = p.settled(ctx, o.ID); err != nil {
		return err
	}
	p.say("   %s: %s", o.Status, o.Reason)
	steps, err := p.saga(ctx, o.ID, "COMPENSATED")
	if err != nil {
		return err
	}
	want := []string{"COMPENSATED", "COMPLETED", "COMPENSATED", "FAILED", "NOT_STARTED", "NOT_STARTED"}
	for i, s := range steps {
		if i >= len(want) || s.Status != want[i] {
			return fmt.Errorf("the steps are %v, want %v", steps, want)
		}
	}
	if o.Status != "cancelled" || !strings.Contains(o.Reason, "declined") {
		return fmt.Errorf("the order is %+v, want it cancelled because the card was declined", o)
	}
	if err := p.notified(ctx, o.ID, "orders.cancelled"); err != nil {
		return err
	}
	after, err := p.stock(ctx, p.product.ID)
	if err == nil && after != before {
		err = fmt.Errorf("stock was %+v and is %+v", before, after)
	}
	return err
}

func (p *play) outOfStock(ctx context.Context) error {
	_, o, err := p.place(ctx, 1000, "pm_card_visa")
	if err != nil {
		return err
	}
	if o, err = p.settled(ctx, o.ID); err != nil {
		return err
	}
	p.say("   %s: %s", o.Status, o.Reason)
	if o.Status != "cancelled" {
		return fmt.Errorf("an order of 1000 is %s", o.Status)
	}
	return nil
}

func (p *play) cancelled(ctx context.Context) error {
	before, err := p.stock(ctx, p.product.ID)
	if err != nil {
		return err
	}
	_, o, err := p.place(ctx, 1, "pm_card_visa")
	if err != nil {
		return err
	}
	if _, err := p.saga(ctx, o.ID, "COMPLETED"); err != nil {
		return err
	}
	a, err := p.customer.Want(ctx, 200, "POST", "/orders/api/v1/orders/"+o.ID+"/cancel", nil)
	if err != nil {
		return err
	}
	if a.Field("status") != "cancelled" {
		return fmt.Errorf("the order is %s", a.Body)
	}
	pay, err := p.admin.Want(ctx, 200, "GET", "/payments/api/v1/payments/pay-"+o.ID, nil)
	if err != nil {
		return err
	}
	after, err := p.stock(ctx, p.product.ID)
	if err != nil {
		return err
	}
	p.say("   the payment is %s, the stock %d as before", pay.Field("status"), after.OnHand)
	if pay.Field("status") != "refunded" || after != before {
		return fmt.Errorf("payment %s, stock %+v, before %+v", pay.Body, after, before)
	}
	return p.notified(ctx, o.ID, "orders.cancelled")
}

func (p *play) traced(ctx context.Context) error {
	want := []string{"gateway", "users", "products", "orders", "inventory", "payments", "notifications"}
	found, err := shopclient.Until(ctx, "log lines of all services", func() (map[string]int, bool, error) {
		logs, err := p.Logs()
		if err != nil {
			return nil, false, err
		}
		found := map[string]int{}
		for line := range strings.Lines(string(logs)) {
			var l struct {
				Service       string `json:"service"`
				CorrelationID string `json:"correlation_id"`
			}
			if json.Unmarshal([]byte(line), &l) == nil && l.CorrelationID == p.correlation {
				found[l.Service]++
			}
		}
		for _, s := range want {
			if found[s] == 0 {
				return found, false, nil
			}
		}
		return found, true, nil
	})
	for _, s := range want {
		p.say("   %-14s %3d lines under %s", s, found[s], p.correlation)
	}
	return err
}
