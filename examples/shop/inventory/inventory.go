// Package inventory is the service that owns the stock and its reservations. It takes part in the sagas of orders
// behind a barrier: requests that arrive twice, late or out of order change the stock once.
//
// The domain is in inventory.go, the use cases in service.go, the event handlers in events.go, the HTTP API in api.go
// and the storage in store.go.
package inventory

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"

	"github.com/sillar-go/sillar/examples/shop/internal/platform"
	"github.com/sillar-go/sillar/repository"
)

// Stock is the stock of a product, under the product's ID. Neither number is ever negative, and Reserved never exceeds
// OnHand.
type Stock struct {
	repository.Meta
	OnHand   int64
	Reserved int64
}

// Available returns the quantity that can still be reserved.
func (s Stock) Available() int64 { return s.OnHand - s.Reserved }

// Status of a reservation.
type Status string

// A reservation begins as Reserved. It is Released when the order fails, Committed when the goods leave, and Restocked
// when they come back.
const (
	Reserved  Status = "reserved"
	Released  Status = "released"
	Committed Status = "committed"
	Restocked Status = "restocked"
)

// Item is a product and how many of it.
type Item struct {
	ProductID string `json:"product_id" minLength:"1" maxLength:"64"`
	Quantity  int64  `json:"quantity" minimum:"1" maximum:"1000"`
}

// Reservation is stock that is reserved for an order. Its ID is derived from the ID of the order, so that a
// compensation can name a reservation that was never made.
type Reservation struct {
	repository.Meta
	OrderID string
	Items   []Item
	Status  Status
}

// ReservationID is the id of an order's reservation.
func ReservationID(orderID string) string { return "res-" + orderID }

// Stocks is the port of the store of stocks.
type Stocks = repository.Repository[Stock]

// Reservations is the port of the store of reservations.
type Reservations = repository.Repository[Reservation]

// take reserves n of the stock, or returns an error when fewer are available.
func (s *Stock) take(n int64) error {
	if s.Available() < n {
		return fmt.Errorf("%d wanted, %d available", n, s.Available())
	}
	s.Reserved += n
	return nil
}

// move is the change of an item's stock when a reservation ends.
type move func(s *Stock, n int64)

func putBack(s *Stock, n int64)  { s.Reserved -= n }
func handOut(s *Stock, n int64)  { s.Reserved -= n; s.OnHand -= n }
func takeBack(s *Stock, n int64) { s.OnHand += n }

// release ends a reservation. A reservation that was released or restocked before stays as it is.
func (r *Reservation) release() (move, error) {
	switch r.Status {
	case Reserved:
		r.Status = Released
		return putBack, nil
	case Committed:
		return nil, platform.Fail(http.StatusConflict, "state", "the reservation is committed already: restock it")
	}
	return nil, nil
}

// commit removes the goods from the stock. The commit of an order that was cancelled meanwhile finds the goods back
// in stock, and leaves them there.
func (r *Reservation) commit() (move, error) {
	if r.Status != Reserved {
		return nil, nil
	}
	r.Status = Committed
	return handOut, nil
}

// restock returns the goods to the stock, whether they were committed or not.
func (r *Reservation) restock() (move, error) {
	if r.Status == Committed {
		r.Status = Restocked
		return takeBack, nil
	}
	return r.release()
}

// once rejects lists that name a product twice.
func once(items []Item) error {
	seen := map[string]bool{}
	for i, it := range items {
		if seen[it.ProductID] {
			return platform.Invalid(fmt.Sprintf("items[%d].product_id", i), "is named twice")
		}
		seen[it.ProductID] = true
	}
	return nil
}

// order returns the order in which the rows of items are locked: it is the same in all transactions, which prevents
// deadlocks.
func order(items []Item) []int {
	at := make([]int, len(items))
	for i := range at {
		at[i] = i
	}
	slices.SortFunc(at, func(a, b int) int { return cmp.Compare(items[a].ProductID, items[b].ProductID) })
	return at
}
