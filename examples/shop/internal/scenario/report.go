package scenario

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/sillar-go/sillar/examples/shop/internal/shopclient"
)

type stock struct {
	OnHand   int64 `json:"on_hand"`
	Reserved int64 `json:"reserved"`
}

func (p *play) stock(ctx context.Context, productID string) (s stock, err error) {
	a, err := p.admin.Want(ctx, 200, "GET", "/inventory/api/v1/inventory/"+productID, nil)
	if err == nil {
		err = a.Into(&s)
	}
	return s, err
}

// place posts an order for some of the product.
func (p *play) place(ctx context.Context, quantity int64, method string,
	header ...string) (shopclient.Answer, order, error) {
	var o order
	a, err := p.customer.Do(ctx, "POST", "/orders/api/v1/orders", map[string]any{
		"items": []map[string]any{{"product_id": p.product.ID, "quantity": quantity}}, "payment_method": method}, header...)
	if err != nil {
		return a, o, err
	}
	if a.Status != 201 && a.Status != 202 {
		return a, o, fmt.Errorf("status %d: %.300s", a.Status, a.Body)
	}
	return a, o, a.Into(&o)
}

// settled waits until an order is no longer pending.
func (p *play) settled(ctx context.Context, id string) (order, error) {
	return shopclient.Until(ctx, "order "+id+" settled", func() (o order, ok bool, err error) {
		a, err := p.customer.Want(ctx, 200, "GET", "/orders/api/v1/orders/"+id, nil)
		if err != nil {
			return o, false, err
		}
		err = a.Into(&o)
		return o, o.Status != "pending", err
	})
}

type sagaStep struct {
	Name   string `json:"name"`
	Status string `json:"status"`
}

// saga waits for the end of an order's saga, and shows its steps.
func (p *play) saga(ctx context.Context, id, want string) ([]sagaStep, error) {
	type view struct {
		Status string     `json:"status"`
		Steps  []sagaStep `json:"steps"`
		Cause  string     `json:"cause"`
	}
	v, err := shopclient.Until(ctx, "saga of order "+id+" "+want, func() (v view, ok bool, err error) {
		a, err := p.customer.Want(ctx, 200, "GET", "/orders/api/v1/orders/"+id+"/saga", nil)
		if err != nil {
			return v, false, err
		}
		err = a.Into(&v)
		return v, v.Status == want, err
	})
	for _, s := range v.Steps {
		mark := map[string]string{"COMPLETED": "✓", "COMPENSATED": "↩", "FAILED": "✗", "STARTED": "…"}[s.Status]
		p.say("     %1s %-20s %s", mark, s.Name, strings.ToLower(s.Status))
	}
	return v.Steps, err
}

// notified waits for the notification of an event about an order.
func (p *play) notified(ctx context.Context, id, event string) error {
	type note struct {
		Event         string `json:"event"`
		Subject       string `json:"subject"`
		Status        string `json:"status"`
		CorrelationID string `json:"correlation_id"`
	}
	n, err := shopclient.Until(ctx, "notification "+event+" of order "+id, func() (note, bool, error) {
		a, err := p.customer.Want(ctx, 200, "GET", "/notifications/api/v1/notifications?order_id="+id, nil)
		if err != nil {
			return note{}, false, err
		}
		var list struct{ Items []note }
		if err := a.Into(&list); err != nil {
			return note{}, false, err
		}
		i := slices.IndexFunc(list.Items, func(n note) bool { return n.Event == event })
		if i < 0 {
			return note{}, false, nil
		}
		return list.Items[i], list.Items[i].Status != "pending", nil
	})
	if err != nil {
		return err
	}
	p.say("     ✉ %s (%s)", n.Subject, n.Status)
	if n.CorrelationID != p.correlation {
		return fmt.Errorf("the notification has the correlation id %q, want %q", n.CorrelationID, p.correlation)
	}
	return nil
}
