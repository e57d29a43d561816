package orders

import (
	"context"
	"errors"

	"github.com/sillar-go/sillar/breaker/breakerhttp"
	"github.com/sillar-go/sillar/examples/shop/internal/platform"
	"github.com/sillar-go/sillar/saga"
)

// Cancelling is the state of the saga that cancels a paid order.
type Cancelling struct {
	OrderID string `json:"order_id"`
	Reason  string `json:"reason"`
}

// cancelOrder defines the saga: once the order is cancelled, the saga refunds the money and restocks the goods.
func cancelOrder(h *steps) *saga.Def[Cancelling] {
	return saga.Define[Cancelling]("cancel-order", 1,
		saga.Pivot("cancel-order", func(ctx context.Context, _ *saga.Call, c *Cancelling) error {
			_, err := h.orders.Handle(ctx, c.OrderID, func(_ context.Context, o Order) ([]Event, error) {
				return o.cancelPaid(c.Reason)
			})
			if errors.Is(err, ErrState) {
				return saga.Reject(err)
			}
			return err
		}),
		saga.Retriable("refund-payment", func(ctx context.Context, call *saga.Call, c *Cancelling) error {
			_, err := platform.Send[struct{}](ctx, h.peers.payments, breakerhttp.Path("api/v1/payments", paymentID(c.OrderID),
				"refund"), struct{}{}, call.Key())
			return h.verdict(ctx, h.peers.payments, err)
		}),
		saga.Retriable("restock", func(ctx context.Context, call *saga.Call, c *Cancelling) error {
			_, err := platform.Send[struct{}](ctx, h.peers.inventory, breakerhttp.Path("api/v1/inventory/reserve",
				reservationID(c.OrderID), "restock"), struct{}{}, call.Key())
			return h.verdict(ctx, h.peers.inventory, err)
		}),
	)
}
