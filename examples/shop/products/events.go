package products

import (
	"context"

	"github.com/sillar-go/sillar/messaging"
)

// ProductEvent is the payload of products.updated and products.deleted.
type ProductEvent struct {
	ProductID  string `json:"product_id"`
	SKU        string `json:"sku"`
	Name       string `json:"name"`
	PriceCents int64  `json:"price_cents"`
	Active     bool   `json:"active"`
}

// NewProductEvent is the payload of products.created.
type NewProductEvent struct {
	ProductEvent
	Stock int64 `json:"stock"`
}

func productEvent(p *Product) ProductEvent {
	return ProductEvent{p.ID, p.SKU, p.Name, p.PriceCents, p.Active}
}

// events publishes through an outbox: each event is stored in the transaction of its change.
type events struct{ outbox messaging.Publisher }

func (e events) ProductCreated(ctx context.Context, p *Product, stock int64) error {
	return e.outbox.Publish(ctx, "products.created", NewProductEvent{productEvent(p), stock}, messaging.WithKey(p.ID))
}

func (e events) ProductUpdated(ctx context.Context, p *Product) error {
	return e.outbox.Publish(ctx, "products.updated", productEvent(p), messaging.WithKey(p.ID))
}

func (e events) ProductDeleted(ctx context.Context, p *Product) error {
	return e.outbox.Publish(ctx, "products.deleted", productEvent(p), messaging.WithKey(p.ID))
}
