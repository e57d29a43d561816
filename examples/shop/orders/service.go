package orders

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/sillar-go/sillar/examples/shop/internal/platform"
	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/eventstore"
	"github.com/sillar-go/sillar/repository/sqldb"
	"github.com/sillar-go/sillar/saga"
)

// waitFor is how long a request waits for its saga. After that the client gets 202 and the order's location.
const waitFor = 5 * time.Second

// service has the use cases of orders.
type service struct {
	db     *sqldb.DB
	orders *eventstore.Aggregate[Order, Event]
	store  eventstore.Store
	rows   repository.Repository[Row]
	peers  *peers
	sagas  *saga.Orchestrator
	place  *saga.Def[Placing]
	cancel *saga.Def[Cancelling]
}

// Request asks for an order.
type Request struct {
	UserID        string
	Lines         []line
	PaymentMethod string
	// Key makes the request once: the same key of the same user gives the same order. Empty: each is a new one.
	Key string
}

func (r Request) hash() string {
	raw, _ := json.Marshal(struct {
		Lines  []line
		Method string
	}{r.Lines, r.PaymentMethod})
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

// Place begins the saga that places an order, and returns the order's id. The request's key, the saga and nothing else
// are stored in one transaction; so a key that is known has a saga that runs or has run, and there is nothing in
// between.
func (s *service) Place(ctx context.Context, r Request) (id string, err error) {
	if id, err := s.known(ctx, r); id != "" || err != nil {
		return id, err
	}
	if err := s.peers.verifyUser(ctx, r.UserID); err != nil {
		return "", err
	}
	priced, err := s.peers.price(ctx, r.Lines)
	if err != nil {
		return "", err
	}
	id = uuid.Must(uuid.NewV7()).String()
	err = s.db.InTx(ctx, func(ctx context.Context) error {
		if r.Key != "" {
			n, err := s.db.Querier(ctx).Exec(ctx, `INSERT INTO order_requests (subject, request_key, hash, order_id, created_at)
				VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING`, r.UserID, r.Key, r.hash(), id, time.Now().UnixMicro())
			if err != nil {
				return err
			}
			if n == 0 {
				return errRaced
			}
		}
		_, err := s.place.Start(ctx, s.sagas, id, Placing{OrderID: id, UserID: r.UserID, Items: priced.Items,
			TotalCents: priced.TotalCents, PaymentMethod: r.PaymentMethod},
			saga.WithAttributes(map[string]string{"user": r.UserID}))
		if errors.Is(err, saga.ErrStarted) { // a repeated request at which prices have changed
			return nil
		}
		return err
	})
	if errors.Is(err, errRaced) {
		return s.known(ctx, r)
	}
	return id, err
}

var errRaced = errors.New("orders: the same request came twice at once")

// known returns the order of a request that was made before.
func (s *service) known(ctx context.Context, r Request) (id string, err error) {
	if r.Key == "" {
		return "", nil
	}
	var hash string
	err = s.db.Querier(ctx).QueryRow(ctx,
		"SELECT hash, order_id FROM order_requests WHERE subject = $1 AND request_key = $2", r.UserID, r.Key).Scan(&hash, &id)
	switch {
	case errors.Is(err, sqldb.ErrNoRows):
		return "", nil
	case err != nil:
		return "", err
	case hash != r.hash():
		return "", platform.Fail(http.StatusUnprocessableEntity, "idempotency-key",
			"the Idempotency-Key was used for another request",
			platform.FieldError{Field: "header.Idempotency-Key", Detail: "belongs to another body"})
	}
	return id, nil
}

// forgetRequests deletes idempotency keys older than platform.KeepRequests.
func (s *service) forgetRequests(ctx context.Context) (int64, error) {
	return s.db.Querier(ctx).Exec(ctx, "DELETE FROM order_requests WHERE created_at < $1",
		time.Now().Add(-platform.KeepRequests).UnixMicro())
}

// Settle waits a while for the end of a saga, and reports whether it has ended.
func settle[S any](ctx context.Context, h *saga.Handle[S]) (ended bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, waitFor)
	defer cancel()
	_, err = h.Wait(ctx)
	var failed *saga.FailedError
	switch {
	case err == nil:
		return true, nil
	case errors.As(err, &failed):
		return failed.Status == saga.Compensated, nil
	case errors.Is(err, context.DeadlineExceeded):
		return false, nil
	}
	return false, err
}

// Get returns an order. One whose saga has not come to its first step is pending, or cancelled if it never will.
func (s *service) Get(ctx context.Context, id string) (Order, error) {
	o, _, err := s.orders.Load(ctx, id)
	if !errors.Is(err, repository.ErrNotFound) {
		return o, err
	}
	r, serr := s.sagas.Get(ctx, id)
	if errors.Is(serr, saga.ErrNotFound) || serr == nil && r.Name != s.place.Name() {
		return o, err
	}
	if serr != nil {
		return o, serr
	}
	var p Placing
	if err := json.Unmarshal(r.State, &p); err != nil {
		return o, fmt.Errorf("orders: state of saga %s: %w", id, err)
	}
	o = Order{ID: id, UserID: p.UserID, Items: p.Items, TotalCents: p.TotalCents, Status: Pending, CreatedAt: r.CreatedAt,
		UpdatedAt: r.UpdatedAt}
	if r.Status == saga.Compensated { // it was compensated before its first step
		o.Status, o.Reason = Cancelled, reason(r.Cause)
	}
	return o, nil
}

// Cancel cancels an order. Before the payment it compensates the order's saga; after that it starts a saga that refunds
// the money and restocks the goods. It reports whether the saga has ended.
func (s *service) Cancel(ctx context.Context, id, reason string) (ended bool, err error) {
	o, err := s.Get(ctx, id)
	switch {
	case err != nil:
		return false, err
	case o.Status == Cancelled:
		return true, nil
	case o.Status != Pending && o.Status != Paid:
		return false, o.refuse("cancelled")
	}
	err = s.sagas.Cancel(ctx, id)
	if err == nil {
		return settle(ctx, s.place.Handle(s.sagas, id))
	}
	if errors.Is(err, saga.ErrPastPivot) {
		return false, platform.Fail(http.StatusConflict, "busy", "the order is being paid right now: try again in a moment")
	}
	if !errors.Is(err, saga.ErrFinished) && !errors.Is(err, saga.ErrNotFound) { // of an old order the saga is forgotten
		return false, err
	}
	// What the saga ended with may not have been there yet when we looked: an order that it has cancelled has nothing
	// to give back.
	switch o, err = s.Get(ctx, id); {
	case err != nil:
		return false, err
	case o.Status == Cancelled:
		return true, nil
	}
	h, err := s.cancel.Start(ctx, s.sagas, "cancel-"+id, Cancelling{OrderID: id, Reason: reason})
	if err != nil && !errors.Is(err, saga.ErrStarted) { // cancelled before, perhaps for another reason
		return false, err
	}
	if ended, err = settle(ctx, h); err != nil || !ended {
		return ended, err
	}
	if o, err = s.Get(ctx, id); err == nil && o.Status != Cancelled {
		err = o.refuse("cancelled")
	}
	return true, err
}

// advance applies a decision to an order.
func (s *service) advance(ctx context.Context, id string, decide func(Order) ([]Event, error)) (Order, error) {
	if _, _, err := s.orders.Load(ctx, id); err != nil {
		return Order{}, err
	}
	return s.orders.Handle(ctx, id, func(_ context.Context, o Order) ([]Event, error) { return decide(o) })
}
