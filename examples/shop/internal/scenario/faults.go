package scenario

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/sillar-go/sillar/examples/shop/internal/shopclient"
)

func (p *play) processor(ctx context.Context, mode string) error {
	_, err := p.admin.Want(ctx, 200, "PUT", "/payments/api/v1/processor", map[string]string{"mode": mode})
	return err
}

// breakerState asks the orders service how it sees payments.
func (p *play) breakerState(ctx context.Context) (string, error) {
	a, err := p.admin.Want(ctx, 200, "GET", "/orders/ready?verbose", nil)
	if err != nil {
		return "", err
	}
	var report struct {
		Checks []struct{ Name, Status string } `json:"checks"`
	}
	if err := json.Unmarshal(a.Body, &report); err != nil {
		return "", err
	}
	for _, c := range report.Checks {
		if c.Name == "payments" {
			return c.Status, nil
		}
	}
	return "", fmt.Errorf("no check of payments in %s", a.Body)
}

func (p *play) broken(ctx context.Context) error {
	if err := p.processor(ctx, "down"); err != nil {
		return err
	}
	p.say("   the payment processor is down")
	var ids []string
	for range 2 {
		_, o, err := p.place(ctx, 1, "pm_card_visa")
		if err != nil {
			return err
		}
		ids = append(ids, o.ID)
	}
	state, err := shopclient.Until(ctx, "breaker open", func() (string, bool, error) {
		s, err := p.breakerState(ctx)
		return s, s == "degraded", err
	})
	if err != nil {
		return err
	}
	p.say("   the breaker is open: orders sees payments as %s, and stays ready", state)
	if err := p.processor(ctx, "ok"); err != nil {
		return err
	}
	p.say("   the processor works again; the orders wait until the breaker closes, 30 s by default")
	for _, id := range ids {
		o, err := p.settled(ctx, id)
		if err != nil {
			return err
		}
		p.say("   order %s…: %s %s", id[:8], o.Status, o.Reason)
	}
	if _, err := shopclient.Until(ctx, "breaker closed, order paid", func() (string, bool, error) {
		_, o, err := p.place(ctx, 1, "pm_card_visa")
		if err != nil {
			return "", false, err
		}
		o, err = p.settled(ctx, o.ID)
		return o.Status, o.Status == "paid", err
	}); err != nil {
		return err
	}
	p.say("   recovered: an order is paid again")
	return nil
}

func (p *play) badInput(ctx context.Context) error {
	for _, c := range []struct {
		what, path string
		body       any
		status     int
		field      string
	}{
		{"quantity 0", "/orders/api/v1/orders", map[string]any{"items": []any{map[string]any{"product_id": p.product.ID,
			"quantity": 0}}, "payment_method": "pm_card_visa"}, 422, "items[0].quantity"},
		{"an unknown product", "/orders/api/v1/orders", map[string]any{"items": []any{map[string]any{"product_id": "none",
			"quantity": 1}}, "payment_method": "pm_card_visa"}, 422, "items[0].product_id"},
		{"no items", "/orders/api/v1/orders", map[string]any{"items": []any{}, "payment_method": "pm_card_visa"}, 422,
			"items"},
		{"a bad address", "/users/api/v1/users", map[string]any{"username": "abc", "email": "nobody",
			"password": "a fine password"}, 422, "email"},
	} {
		a, err := p.customer.Want(ctx, c.status, "POST", c.path, c.body)
		if err != nil {
			return fmt.Errorf("%s: %w", c.what, err)
		}
		var problem struct {
			Type          string `json:"type"`
			CorrelationID string `json:"correlation_id"`
			Errors        []struct{ Field, Detail string }
		}
		if err := a.Into(&problem); err != nil {
			return err
		}
		if a.Header.Get("Content-Type") != "application/problem+json" || problem.CorrelationID != p.correlation ||
			len(problem.Errors) == 0 || problem.Errors[0].Field != c.field {
			return fmt.Errorf("%s: %s: %s", c.what, a.Header.Get("Content-Type"), a.Body)
		}
		p.say("   %-20s %d %s: %s", c.what, a.Status, problem.Errors[0].Field, problem.Errors[0].Detail)
	}
	return nil
}
