// Package orders is the service that sells. It stores orders as events; a saga over inventory, payments and this
// service places them.
//
// The file order.go holds the domain; place.go and cancel.go the sagas; service.go what can be done; events.go what is
// published; read.go the read model; api.go, operators.go the HTTP API; peers.go the clients of other services.
package orders

import (
	"errors"
	"fmt"
	"time"

	"github.com/sillar-go/sillar/repository/eventstore"
)

// Status of an order.
type Status string

// An order goes from Pending to Paid, Shipped and Delivered; until it is shipped it can be Cancelled.
const (
	Pending   Status = "pending"
	Paid      Status = "paid"
	Shipped   Status = "shipped"
	Delivered Status = "delivered"
	Cancelled Status = "cancelled"
)

// Item is an ordered product, with its price at the time of the order.
type Item struct {
	ProductID  string `json:"product_id"`
	Name       string `json:"name"`
	Quantity   int64  `json:"quantity"`
	PriceCents int64  `json:"price_cents"`
}

// Order is the state that results from the events of an order.
type Order struct {
	ID         string
	UserID     string
	Items      []Item
	TotalCents int64
	Status     Status
	PaymentID  string
	Reason     string // of a cancellation
	CreatedAt  time.Time
	UpdatedAt  time.Time
}

// ErrState means that the state of the order does not permit the operation.
var ErrState = errors.New("orders: not possible in this state")

// Event is something that happened to an order.
type Event interface{ head() Head }

// Head is part of every event, so that each event is complete by itself.
type Head struct {
	OrderID    string    `json:"order_id"`
	UserID     string    `json:"user_id"`
	TotalCents int64     `json:"total_cents"`
	At         time.Time `json:"at"`
}

func (h Head) head() Head { return h }

// The events.
type (
	// Created says that an order was begun; it is pending.
	Created struct {
		Head
		Items []Item `json:"items"`
	}
	// WasPaid says that the money was captured: the order stands.
	WasPaid struct {
		Head
		PaymentID string `json:"payment_id"`
	}
	// WasShipped says that the goods have left.
	WasShipped struct{ Head }
	// WasDelivered says that the goods have arrived.
	WasDelivered struct{ Head }
	// WasCancelled says that the order will not be fulfilled.
	WasCancelled struct {
		Head
		Reason string `json:"reason"`
	}
)

// types are the names under which events are stored.
var types = eventstore.Types[Event]{
	eventstore.Type[Created]("order_created", 1),
	eventstore.Type[WasPaid]("order_paid", 1),
	eventstore.Type[WasShipped]("order_shipped", 1),
	eventstore.Type[WasDelivered]("order_delivered", 1),
	eventstore.Type[WasCancelled]("order_cancelled", 1),
}

func evolve(o Order, e Event) Order {
	o.UpdatedAt = e.head().At
	switch e := e.(type) {
	case Created:
		o.ID, o.UserID, o.Items, o.TotalCents = e.OrderID, e.UserID, e.Items, e.TotalCents
		o.Status, o.CreatedAt = Pending, e.At
	case WasPaid:
		o.Status, o.PaymentID = Paid, e.PaymentID
	case WasShipped:
		o.Status = Shipped
	case WasDelivered:
		o.Status = Delivered
	case WasCancelled:
		o.Status, o.Reason = Cancelled, e.Reason
	}
	return o
}

// head is the head of the order's next event.
func (o Order) next() Head { return Head{o.ID, o.UserID, o.TotalCents, now()} }

func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

// The decisions: what happens when something is asked of an order. Asking again for what has happened changes nothing.

func (o Order) pay(paymentID string) ([]Event, error) {
	switch {
	case o.Status == Pending:
		return []Event{WasPaid{o.next(), paymentID}}, nil
	case o.Status == Paid && o.PaymentID == paymentID:
		return nil, nil
	}
	return nil, o.refuse("paid")
}

func (o Order) cancelPending(reason string) ([]Event, error) {
	switch o.Status {
	case "", Cancelled:
		return nil, nil
	case Pending:
		return []Event{WasCancelled{o.next(), reason}}, nil
	}
	return nil, o.refuse("cancelled")
}

func (o Order) cancelPaid(reason string) ([]Event, error) {
	switch o.Status {
	case Cancelled:
		return nil, nil
	case Paid:
		return []Event{WasCancelled{o.next(), reason}}, nil
	}
	return nil, o.refuse("cancelled")
}

func (o Order) ship() ([]Event, error) {
	switch o.Status {
	case Shipped:
		return nil, nil
	case Paid:
		return []Event{WasShipped{o.next()}}, nil
	}
	return nil, o.refuse("shipped")
}

func (o Order) deliver() ([]Event, error) {
	switch o.Status {
	case Delivered:
		return nil, nil
	case Shipped:
		return []Event{WasDelivered{o.next()}}, nil
	}
	return nil, o.refuse("delivered")
}

func (o Order) refuse(what string) error {
	return fmt.Errorf("%w: an order that is %s cannot be %s", ErrState, o.Status, what)
}
