// Package products is the service of the catalogue: what is sold, and at which price. Prices come from here, never from
// a client; what is in stock is the business of inventory.
//
// The file product.go holds the domain; service.go the use cases; events.go the events; stock.go what is asked of
// inventory; api.go how it is reached; store.go where it is kept.
package products

import (
	"context"
	"fmt"

	"github.com/sillar-go/sillar/examples/shop/internal/platform"
	"github.com/sillar-go/sillar/repository"
)

// Product is something that is sold.
type Product struct {
	repository.Meta
	SKU         string `repo:"sku"`
	Name        string
	Description string
	PriceCents  int64
	// Active says that it can be ordered.
	Active bool
}

var (
	byName  = repository.Text(func(p *Product) *string { return &p.Name })
	byPrice = repository.Ord(func(p *Product) *int64 { return &p.PriceCents })
)

// Repository is the port of the store of products.
type Repository = repository.Repository[Product]

// Events is the port that publishes events of products. It is called inside the write that the event describes. Stock
// is what there is of the product at first.
type Events interface {
	ProductCreated(ctx context.Context, p *Product, stock int64) error
	ProductUpdated(ctx context.Context, p *Product) error
	ProductDeleted(ctx context.Context, p *Product) error
}

// Item is a product and how many of it.
type Item struct {
	ProductID string `json:"product_id" minLength:"1" maxLength:"64"`
	Quantity  int64  `json:"quantity" minimum:"1" maximum:"1000"`
}

// Priced is an item with what products and inventory know about it.
type Priced struct {
	ProductID  string `json:"product_id"`
	Name       string `json:"name"`
	PriceCents int64  `json:"price_cents"`
	Quantity   int64  `json:"quantity"`
	Available  bool   `json:"available"`
}

// Offer is what a list of items costs, and whether all of it is there.
type Offer struct {
	Available  bool     `json:"available"`
	Items      []Priced `json:"items"`
	TotalCents int64    `json:"total_cents"`
}

// offer prices items. Those that cannot be ordered are all named.
func offer(items []Item, found map[string]Product) (Offer, error) {
	out := Offer{Items: make([]Priced, 0, len(items))}
	bad := platform.Fail(422, "validation", "some of the products cannot be ordered")
	seen := map[string]bool{}
	for i, it := range items {
		p, known := found[it.ProductID]
		why := ""
		switch {
		case seen[it.ProductID]:
			why = "is named twice"
		case !known:
			why = "there is no such product"
		case !p.Active:
			why = "is not sold any more"
		}
		if why != "" {
			bad.Errors = append(bad.Errors, platform.FieldError{Field: fmt.Sprintf("items[%d].product_id", i), Detail: why})
			continue
		}
		seen[it.ProductID] = true
		out.Items = append(out.Items, Priced{ProductID: p.ID, Name: p.Name, PriceCents: p.PriceCents, Quantity: it.Quantity})
		out.TotalCents += p.PriceCents * it.Quantity
	}
	if len(bad.Errors) > 0 {
		return Offer{}, bad
	}
	return out, nil
}
