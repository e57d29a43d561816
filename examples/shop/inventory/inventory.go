// Package inventory is the service that owns the stock: what is there, and what is promised to orders. It takes part in
// the sagas of orders behind a barrier: whatever comes twice, late or in the wrong order changes the stock once.
//
// The file inventory.go holds the domain; service.go what can be done; events.go what is listened to; api.go how it is
// reached; store.go where it is kept.
package inventory

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"

	"github.com/sillar-go/sillar/examples/shop/internal/platform"
	"github.com/sillar-go/sillar/repository"
)

// Stock is what there is of a product; its ID is the product's. Neither number is ever negative, and Reserved is never
// more than OnHand.
type Stock struct {
	repository.Meta
	OnHand   int64
	Reserved int64
}

// Available is what may still be promised.
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

// Reservation is stock that is promised to an order. Its ID is known to whoever knows the order's: who gives up must be
// able to name what may never have been made.
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

// take promises an item, or says why it cannot.
func (s *Stock) take(n int64) error {
	if s.Available() < n {
		return fmt.Errorf("%d wanted, %d available", n, s.Available())
	}
	s.Reserved += n
	return nil
}

// move is what a reservation's end does to the stock of an item.
type move func(s *Stock, n int64)

func putBack(s *Stock, n int64)  { s.Reserved -= n }
func handOut(s *Stock, n int64)  { s.Reserved -= n; s.OnHand -= n }
func takeBack(s *Stock, n int64) { s.OnHand += n }

// release ends a promise. What was released before, or came back, stays as it is.
func (r *Reservation) release() (move, error) {
	switch r.Status {
	case Reserved:
		r.Status = Released
		return putBack, nil
	case Committed:
		return nil, platform.Fail(http.StatusConflict, "state", "the goods have left already: restock them")
	}
	return nil, nil
}

// commit lets the goods leave. The commit of an order that was cancelled meanwhile finds the goods back in stock, and
// leaves them there.
func (r *Reservation) commit() (move, error) {
	if r.Status != Reserved {
		return nil, nil
	}
	r.Status = Committed
	return handOut, nil
}

// restock brings the goods back, whether they had left or not.
func (r *Reservation) restock() (move, error) {
	if r.Status == Committed {
		r.Status = Restocked
		return takeBack, nil
	}
	return r.release()
}

// once refuses lists that name a product twice.
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

// order is the sequence in which the rows of items are locked: everybody's is the same, so that nobody waits in a
// circle.
func order(items []Item) []int {
	at := make([]int, len(items))
	for i := range at {
		at[i] = i
	}
	slices.SortFunc(at, func(a, b int) int { return cmp.Compare(items[a].ProductID, items[b].ProductID) })
	return at
}
