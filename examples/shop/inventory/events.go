package inventory

import (
	"context"
	"errors"

	"github.com/sillar-go/sillar/examples/shop/internal/platform"
	"github.com/sillar-go/sillar/messaging"
)

// productCreated is the payload of products.created.
type productCreated struct {
	ProductID string `json:"product_id"`
	Stock     int64  `json:"stock"`
}

// subscribe makes a stock for every new product, once: the inbox notes the event in the transaction that makes it.
// Other news of products change no stock: goods may come back also for a product that was deleted.
func subscribe(r *messaging.Router, inbox messaging.Deduplicator, start messaging.Start, s *Service) {
	g := r.Group("inventory", messaging.GroupConfig{Dedup: inbox, Start: start,
		Retry: platform.HandlerRetry})
	messaging.Handle(g, "products.*", func(ctx context.Context, m messaging.Message[productCreated]) error {
		if m.Type != "products.created" {
			return nil
		}
		if m.Data.ProductID == "" || m.Data.Stock < 0 {
			return messaging.Permanent(errors.New("inventory: products.created without a product, or with a stock below 0"))
		}
		return s.Add(ctx, m.Data.ProductID, m.Data.Stock)
	})
}
