package inventory

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/sillar-go/sillar/examples/shop/internal/platform"
	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/saga/barrier"
)

// Service has the use cases of the stock.
type Service struct {
	tx           repository.Transactor
	stocks       Stocks
	reservations Reservations
	barrier      *barrier.Barrier
}

// once runs fn in a transaction unless the key has been applied before.
func (s *Service) once(ctx context.Context, key string, fn func(ctx context.Context) error) error {
	err := s.tx.InTx(ctx, func(ctx context.Context) error { return s.barrier.Do(ctx, key, fn) })
	switch {
	case errors.Is(err, barrier.ErrTooLate):
		return platform.Fail(http.StatusConflict, "too-late", "the reservation was released before it was made")
	case errors.Is(err, barrier.ErrKey):
		return platform.Invalid("header.Idempotency-Key", "want the key of a saga's step, which ends with /do or /undo")
	}
	return err
}

// Available returns how many of each item can be reserved now, in the order of items.
func (s *Service) Available(ctx context.Context, items []Item) ([]int64, error) {
	ids := make([]string, len(items))
	for i, it := range items {
		ids[i] = it.ProductID
	}
	found, err := s.stocks.GetMany(ctx, ids)
	if err != nil {
		return nil, err
	}
	byID := map[string]int64{}
	for _, st := range found {
		byID[st.ID] = st.Available()
	}
	out := make([]int64, len(items))
	for i, id := range ids {
		out[i] = byID[id]
	}
	return out, nil
}

// Reserve reserves all items for an order, or none. A repeated key returns the reservation in its present state.
func (s *Service) Reserve(ctx context.Context, key, orderID string, items []Item) (Reservation, error) {
	if err := once(items); err != nil {
		return Reservation{}, err
	}
	err := s.once(ctx, key, func(ctx context.Context) error {
		switch _, err := s.reservations.Get(ctx, ReservationID(orderID)); {
		case err == nil:
			return platform.Fail(http.StatusConflict, "reserved", "the order has a reservation already")
		case !errors.Is(err, repository.ErrNotFound):
			return err
		}
		if err := s.takeAll(ctx, items); err != nil {
			return err
		}
		_, err := s.reservations.Create(ctx, Reservation{Meta: repository.Meta{ID: ReservationID(orderID)}, OrderID: orderID,
			Items: items, Status: Reserved})
		return err
	})
	if err != nil {
		return Reservation{}, err
	}
	r, err := s.reservations.Get(ctx, ReservationID(orderID))
	if errors.Is(err, repository.ErrNotFound) || err == nil && !slices.Equal(r.Items, items) {
		return Reservation{}, platform.Fail(http.StatusUnprocessableEntity, "idempotency-key",
			"the Idempotency-Key was used for another request",
			platform.FieldError{Field: "header.Idempotency-Key", Detail: "was used for another request"})
	}
	return r, err
}

func (s *Service) takeAll(ctx context.Context, items []Item) error {
	short := platform.Fail(http.StatusConflict, "out-of-stock", "not enough in stock")
	lack := func(i int, why string) {
		short.Errors = append(short.Errors, platform.FieldError{Field: fmt.Sprintf("items[%d].quantity", i), Detail: why})
	}
	for _, i := range order(items) {
		_, err := s.stocks.Update(ctx, items[i].ProductID, func(_ context.Context, st *Stock) error {
			if err := st.take(items[i].Quantity); err != nil {
				lack(i, err.Error())
			}
			return nil
		})
		if errors.Is(err, repository.ErrNotFound) {
			lack(i, "there is no stock of this product")
			return short
		}
		if err != nil {
			return err
		}
	}
	if len(short.Errors) > 0 {
		return short
	}
	return nil
}

// Release releases a reservation, also one that has not been made yet.
func (s *Service) Release(ctx context.Context, key, id string) error {
	return s.end(ctx, key, id, (*Reservation).release)
}

// Commit removes the goods of a reservation from the stock.
func (s *Service) Commit(ctx context.Context, key, id string) (Reservation, error) {
	if err := s.end(ctx, key, id, (*Reservation).commit); err != nil {
		return Reservation{}, err
	}
	return s.reservations.Get(ctx, id)
}

// Restock returns the goods of a reservation to the stock.
func (s *Service) Restock(ctx context.Context, key, id string) (Reservation, error) {
	if err := s.end(ctx, key, id, (*Reservation).restock); err != nil {
		return Reservation{}, err
	}
	return s.reservations.Get(ctx, id)
}

// end changes a reservation and the stock of its items together.
func (s *Service) end(ctx context.Context, key, id string, how func(*Reservation) (move, error)) error {
	return s.once(ctx, key, func(ctx context.Context) error {
		var m move
		r, err := s.reservations.Update(ctx, id, func(_ context.Context, r *Reservation) (err error) {
			m, err = how(r)
			return err
		})
		if err != nil || m == nil {
			return err
		}
		for _, i := range order(r.Items) {
			it := r.Items[i]
			if _, err := s.stocks.Update(ctx, it.ProductID, func(_ context.Context, st *Stock) error {
				m(st, it.Quantity)
				return nil
			}); err != nil {
				return err
			}
		}
		return nil
	})
}

// Set sets the counted stock of a product.
func (s *Service) Set(ctx context.Context, productID string, onHand int64) (Stock, error) {
	return s.stocks.Update(ctx, productID, func(_ context.Context, st *Stock) error {
		if onHand < st.Reserved {
			return platform.Fail(http.StatusConflict, "reserved", "more than that is reserved",
				platform.FieldError{Field: "on_hand", Detail: fmt.Sprintf("%d are reserved", st.Reserved)})
		}
		st.OnHand = onHand
		return nil
	})
}

// Add creates the stock of a new product. An existing stock is not changed.
func (s *Service) Add(ctx context.Context, productID string, onHand int64) error {
	return s.tx.InTx(ctx, func(ctx context.Context) error {
		_, err := s.stocks.Get(ctx, productID)
		if errors.Is(err, repository.ErrNotFound) {
			_, err = s.stocks.Create(ctx, Stock{Meta: repository.Meta{ID: productID}, OnHand: onHand})
		}
		return err
	})
}
