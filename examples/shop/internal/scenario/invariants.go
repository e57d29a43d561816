package scenario

import (
	"context"
	"fmt"
	"net/url"
	"slices"

	"github.com/sillar-go/sillar/examples/shop/internal/shopclient"
)

// all reads every page of a list.
func all[T any](ctx context.Context, c *shopclient.Client, path string) ([]T, error) {
	var out []T
	for after := ""; ; {
		a, err := c.Want(ctx, 200, "GET", path+"?limit=200&after="+url.QueryEscape(after), nil)
		if err != nil {
			return nil, err
		}
		var page struct {
			Items []T    `json:"items"`
			Next  string `json:"next"`
		}
		if err := a.Into(&page); err != nil {
			return nil, err
		}
		out = append(out, page.Items...)
		if after = page.Next; after == "" {
			return out, nil
		}
	}
}

// Invariants checks what must always hold of a shop, once it is quiet.
func Invariants(ctx context.Context, cfg Config) error {
	admin, err := shopclient.Login(ctx, cfg.Gateway, cfg.Admin, cfg.AdminPassword, "invariants")
	if err != nil {
		return err
	}
	return (&play{Config: cfg, admin: admin}).invariants(ctx)
}

// invariants are about everything that the shop holds, not about this customer's orders alone. They are looked at
// until the shop is quiet.
func (p *play) invariants(ctx context.Context) error {
	lines, err := shopclient.Until(ctx, "the invariants hold", func() ([]string, bool, error) {
		return p.books(ctx)
	})
	for _, l := range lines {
		p.say("   %s", l)
	}
	return err
}

type payment struct {
	OrderID     string `json:"order_id"`
	AmountCents int64  `json:"amount_cents"`
	Status      string `json:"status"`
}

type sagaView struct {
	ID     string `json:"id"`
	Status string `json:"status"`
}

type stockView struct {
	ProductID string `json:"product_id"`
	stock
}

// books compares what the services hold: it returns what is equal, and whether all is.
func (p *play) books(ctx context.Context) (lines []string, ok bool, err error) {
	sagas, err := all[sagaView](ctx, p.admin, "/orders/api/v1/sagas")
	if err != nil {
		return nil, false, err
	}
	for _, s := range sagas {
		if s.Status != "COMPLETED" && s.Status != "COMPENSATED" {
			return []string{"saga " + s.ID + " is " + s.Status}, false, nil
		}
	}
	orders, err := all[order](ctx, p.admin, "/orders/api/v1/orders")
	if err != nil {
		return nil, false, err
	}
	payments, err := all[payment](ctx, p.admin, "/payments/api/v1/payments")
	if err != nil {
		return nil, false, err
	}
	stocks, err := all[stockView](ctx, p.admin, "/inventory/api/v1/inventory")
	if err != nil {
		return nil, false, err
	}
	captured := map[string]int64{}
	var money, sold int64
	for _, pay := range payments {
		if pay.Status == "captured" {
			captured[pay.OrderID] += pay.AmountCents
			money += pay.AmountCents
		}
	}
	for _, o := range orders {
		switch o.Status {
		case "pending":
			return []string{"order " + o.ID + " is pending"}, false, nil
		case "cancelled":
			if captured[o.ID] != 0 {
				return nil, false, fmt.Errorf("cancelled order %s keeps %d cents", o.ID, captured[o.ID])
			}
		default:
			sold += o.TotalCents
			if captured[o.ID] != o.TotalCents {
				return nil, false, fmt.Errorf("order %s over %d cents has %d captured", o.ID, o.TotalCents, captured[o.ID])
			}
		}
	}
	if err := p.totals(ctx, money, sold); err != nil {
		return nil, false, err
	}
	for _, s := range stocks {
		if s.OnHand < 0 || s.Reserved != 0 {
			return nil, false, fmt.Errorf("stock of %s: %d on hand, %d reserved", s.ProductID, s.OnHand, s.Reserved)
		}
	}
	return []string{
		fmt.Sprintf("money captured %s = orders that stand %s", euros(money), euros(sold)),
		fmt.Sprintf("%d sagas ended, none stuck", len(sagas)),
		fmt.Sprintf("stock of %d products: never negative, nothing left reserved", len(stocks)),
	}, money == sold, nil
}

// totals compares what the services add up with what the lists add up to.
func (p *play) totals(ctx context.Context, captured, standing int64) error {
	for path, want := range map[string]int64{"/payments/api/v1/totals": captured, "/orders/api/v1/totals": standing} {
		a, err := p.admin.Want(ctx, 200, "GET", path, nil)
		if err != nil {
			return err
		}
		var list struct {
			Items []struct {
				Status string `json:"status"`
				Cents  int64  `json:"cents"`
			} `json:"items"`
		}
		if err := a.Into(&list); err != nil {
			return err
		}
		var sum int64
		for _, t := range list.Items {
			if slices.Contains([]string{"captured", "paid", "shipped", "delivered"}, t.Status) {
				sum += t.Cents
			}
		}
		if sum != want {
			return fmt.Errorf("%s says %d cents, the list %d", path, sum, want)
		}
	}
	return nil
}
