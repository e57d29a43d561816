package orders

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/sillar-go/sillar/breaker/breakerhttp"
	"github.com/sillar-go/sillar/examples/shop/internal/platform"
	"github.com/sillar-go/sillar/repository/eventstore"
	"github.com/sillar-go/sillar/saga"
)

// Placing is the state of the saga that places an order.
type Placing struct {
	OrderID       string `json:"order_id"`
	UserID        string `json:"user_id"`
	Items         []Item `json:"items"`
	TotalCents    int64  `json:"total_cents"`
	PaymentMethod string `json:"payment_method"`
	ReservationID string `json:"reservation_id,omitempty"`
	PaymentID     string `json:"payment_id,omitempty"`
}

// Both sides derive these IDs, so that a compensation can name what was never made.
func reservationID(orderID string) string { return "res-" + orderID }
func paymentID(orderID string) string     { return "pay-" + orderID }

// placeOrder defines the saga: the order is pending until it is paid, and every step before that can be undone.
func placeOrder(h *steps) *saga.Def[Placing] {
	return saga.Define[Placing]("place-order", 1,
		saga.Step("create-order", h.create).Compensate(h.cancel),
		saga.Step("check-inventory", h.check),
		saga.Step("reserve-inventory", h.reserve).Compensate(h.release),
		saga.Step("process-payment", h.pay).Compensate(h.refund).Timeout(15*time.Second),
		saga.Pivot("confirm-order", h.confirm),
		saga.Retriable("commit-reservation", h.commit),
	).Deadline(confirmWithin)
}

// confirmWithin bounds how long an order waits for services that do not answer. Then it is cancelled.
const confirmWithin = 10 * time.Minute

// steps holds the handlers of the steps.
type steps struct {
	orders *eventstore.Aggregate[Order, Event]
	peers  *peers
	log    *slog.Logger
}

func (h *steps) create(ctx context.Context, _ *saga.Call, p *Placing) error {
	_, err := h.orders.Handle(ctx, p.OrderID, func(_ context.Context, o Order) ([]Event, error) {
		if o.Status != "" {
			return nil, nil
		}
		return []Event{Created{Head{p.OrderID, p.UserID, p.TotalCents, now()}, p.Items}}, nil
	})
	return err
}

func (h *steps) cancel(ctx context.Context, c *saga.Call, p *Placing) error {
	_, cause := c.Cause()
	_, err := h.orders.Handle(ctx, p.OrderID, func(_ context.Context, o Order) ([]Event, error) {
		return o.cancelPending(reason(cause))
	})
	return err
}

// reason returns the reason for a compensation that the customer sees.
func reason(cause string) string {
	switch cause {
	case saga.ErrCancelled.Error():
		return "cancelled by the customer"
	case saga.ErrDeadline.Error():
		return "it could not be confirmed in time"
	}
	return cause
}

func (h *steps) check(ctx context.Context, _ *saga.Call, p *Placing) error {
	got, err := platform.Send[struct {
		Available bool `json:"available"`
	}](ctx, h.peers.inventory, "api/v1/inventory/check", linesBody{lines(p.Items)}, "")
	if err != nil {
		return h.verdict(ctx, h.peers.inventory, err)
	}
	if !got.Available {
		return saga.Reject(errors.New("not enough in stock"))
	}
	return nil
}

func (h *steps) reserve(ctx context.Context, c *saga.Call, p *Placing) error {
	body := struct {
		OrderID string `json:"order_id"`
		linesBody
	}{p.OrderID, linesBody{lines(p.Items)}}
	got, err := platform.Send[struct {
		ReservationID string `json:"reservation_id"`
	}](ctx, h.peers.inventory, "api/v1/inventory/reserve", body, c.Key())
	p.ReservationID = got.ReservationID
	return h.verdict(ctx, h.peers.inventory, err)
}

func (h *steps) release(ctx context.Context, c *saga.Call, p *Placing) error {
	err := platform.Remove(ctx, h.peers.inventory, breakerhttp.Path("api/v1/inventory/reserve", reservationID(p.OrderID)),
		c.Key())
	return h.verdict(ctx, h.peers.inventory, err)
}

func (h *steps) pay(ctx context.Context, c *saga.Call, p *Placing) error {
	body := struct {
		OrderID       string `json:"order_id"`
		UserID        string `json:"user_id"`
		AmountCents   int64  `json:"amount_cents"`
		PaymentMethod string `json:"payment_method"`
	}{p.OrderID, p.UserID, p.TotalCents, p.PaymentMethod}
	got, err := platform.Send[struct {
		PaymentID string `json:"payment_id"`
	}](ctx, h.peers.payments, "api/v1/payments", body, c.Key())
	p.PaymentID = got.PaymentID
	return h.verdict(ctx, h.peers.payments, err)
}

func (h *steps) refund(ctx context.Context, c *saga.Call, p *Placing) error {
	_, err := platform.Send[struct{}](ctx, h.peers.payments, breakerhttp.Path("api/v1/payments", paymentID(p.OrderID),
		"refund"), struct{}{}, c.Key())
	return h.verdict(ctx, h.peers.payments, err)
}

func (h *steps) confirm(ctx context.Context, _ *saga.Call, p *Placing) error {
	_, err := h.orders.Handle(ctx, p.OrderID, func(_ context.Context, o Order) ([]Event, error) {
		return o.pay(p.PaymentID)
	})
	if errors.Is(err, ErrState) {
		return saga.Reject(err)
	}
	return err
}

func (h *steps) commit(ctx context.Context, c *saga.Call, p *Placing) error {
	_, err := platform.Send[struct{}](ctx, h.peers.inventory, breakerhttp.Path("api/v1/inventory/reserve", p.ReservationID,
		"commit"), struct{}{}, c.Key())
	return h.verdict(ctx, h.peers.inventory, err)
}

// verdict maps the answer of a peer to an outcome of the step. A rejection has had no effect; its text is written for
// customers and becomes the reason of the cancellation. What an open breaker refused was not attempted. All else is in
// doubt; its text may name addresses and is logged only.
func (h *steps) verdict(ctx context.Context, peer *platform.Peer, err error) error {
	if err == nil {
		return nil
	}
	var res *breakerhttp.ResponseError
	if errors.As(err, &res) {
		switch res.Status {
		case http.StatusPaymentRequired, http.StatusConflict, http.StatusUnprocessableEntity, http.StatusNotFound,
			http.StatusBadRequest:
			reason := "the " + peer.Name() + " service refused"
			if res.Problem != nil && res.Problem.Detail != "" {
				reason = res.Problem.Detail
			}
			return saga.Reject(errors.New(reason))
		}
	}
	failed := fmt.Errorf("the %s service did not answer", peer.Name())
	var open interface {
		NotAttempted() (retryAfter time.Duration, ok bool)
	}
	if errors.As(err, &open) { // its breaker is open: the step waits, and uses no attempt
		if retryAfter, ok := open.NotAttempted(); ok {
			return saga.NotAttempted(failed, retryAfter)
		}
	}
	h.log.WarnContext(ctx, "a peer did not answer", "peer", peer.Name(), "error", err)
	return failed
}
