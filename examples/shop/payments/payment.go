// Package payments is the service that takes money and gives it back, through a card processor. It takes part in the
// sagas of orders behind a barrier and gives the processor a key for every charge: requests that arrive twice, late,
// out of order or again after a crash charge the card at most once.
//
// The file payment.go holds the domain; service.go the use cases; processor.go the simulated processor; api.go how
// it is reached; store.go where it is kept.
package payments

import (
	"context"
	"errors"

	"github.com/sillar-go/sillar/repository"
)

// Status of a payment.
type Status string

// A payment is Captured, and maybe Refunded later, or else Declined.
const (
	Captured Status = "captured"
	Refunded Status = "refunded"
	Declined Status = "declined"
)

// Payment is the payment of an order. Its ID is derived from the ID of the order, so that a compensation can name a
// payment that was never made.
type Payment struct {
	repository.Meta
	OrderID     string
	UserID      string
	AmountCents int64
	Method      string
	Status      Status
	// Reason says why it was declined.
	Reason string
	// ChargeKey names the charge to the processor.
	ChargeKey string
	// RefundKey is the idempotency key of the refund.
	RefundKey string
}

var (
	byOrder  = repository.Text(func(p *Payment) *string { return &p.OrderID })
	byCharge = repository.Text(func(p *Payment) *string { return &p.ChargeKey })
	byRefund = repository.Text(func(p *Payment) *string { return &p.RefundKey })
)

// Repository is the port of the store of payments.
type Repository = repository.Repository[Payment]

// PaymentID is the id of an order's payment.
func PaymentID(orderID string) string { return "pay-" + orderID }

// same reports whether the payment is what a request asks for.
func (p Payment) same(c Charge) bool {
	return p.OrderID == c.OrderID && p.UserID == c.UserID && p.AmountCents == c.AmountCents && p.Method == c.Method
}

// Charge is a request for money.
type Charge struct {
	// Key identifies the charge. The processor applies each key once.
	Key         string
	OrderID     string
	UserID      string
	AmountCents int64
	Method      string
}

// Processor is the port to the payment processor, which deduplicates by key.
type Processor interface {
	// Charge takes the money. The same charge again gets the same answer, and takes nothing more. It fails with a
	// *DeclinedError, or with one of the errors below.
	Charge(ctx context.Context, c Charge) error
	// Void gives the money of a charge back. A charge that never came is refused from now on.
	Void(ctx context.Context, key string) error
}

// Errors of a Processor, to be compared with errors.Is.
var (
	// ErrProcessor means that the processor did not answer: whether the money moved is not known.
	ErrProcessor = errors.New("payments: the processor did not answer")
	// ErrVoided means that the charge was voided before.
	ErrVoided = errors.New("payments: the charge was voided")
	// ErrKeyReused means that the key named another charge before.
	ErrKeyReused = errors.New("payments: the key named another charge before")
	// ErrMethod means that there is no such payment method.
	ErrMethod = errors.New("payments: unknown payment method")
)

// DeclinedError means that the charge was declined.
type DeclinedError struct {
	// Reason is for the customer to read.
	Reason string
}

// Error implements error.
func (e *DeclinedError) Error() string { return "payments: declined: " + e.Reason }
