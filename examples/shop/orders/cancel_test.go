package orders

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/sillar-go/sillar/repository/eventstore"
	"github.com/sillar-go/sillar/repository/eventstore/sqlevents"
	"github.com/sillar-go/sillar/repository/sqldb"
	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/sagasql"
)

// behind is a store whose next load of a stream still sees the first event alone.
type behind struct {
	eventstore.Store
	once bool
}

func (b *behind) LoadFrom(ctx context.Context, stream string, after int64) iter.Seq2[eventstore.Recorded, error] {
	all := b.Store.LoadFrom(ctx, stream, after)
	if !b.once {
		return all
	}
	b.once = false
	return func(yield func(eventstore.Recorded, error) bool) {
		for e, err := range all {
			yield(e, err)
			return
		}
	}
}

// cancelling makes the service as far as it is needed to cancel; run lets its sagas go on until the test ends. place is
// placeOrder, or what stands for it.
func cancelling(t *testing.T, place func(*steps) *saga.Def[Placing]) (s *service, store *behind, run func()) {
	t.Helper()
	db := sqldb.Must(sqldb.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "orders.db"),
		sqldb.Config{Synchronous: "OFF"}))
	t.Cleanup(func() { _ = db.Close() })
	events, sagas := sqlevents.Must(sqlevents.New(db, sqlevents.Config{})), sagasql.Must(sagasql.New(db, sagasql.Config{}))
	if err := errors.Join(events.EnsureSchema(t.Context()), sagas.EnsureSchema(t.Context())); err != nil {
		t.Fatal(err)
	}
	store = &behind{Store: events}
	log := slog.New(slog.DiscardHandler)
	orders := eventstore.Must(eventstore.NewAggregate(store, eventstore.Decider[Order, Event]{Evolve: evolve}, types,
		eventstore.AggregateConfig{Category: "order"}))
	h := &steps{orders: orders, log: log}
	s = &service{db: db, orders: orders, store: store, place: place(h), cancel: cancelOrder(h)}
	var err error
	if s.sagas, err = saga.New(sagas, saga.Config{Name: "orders", Logger: log}, s.place, s.cancel); err != nil {
		t.Fatal(err)
	}
	return s, store, func() {
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- s.sagas.Run(ctx) }()
		t.Cleanup(func() {
			stop()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// begin begins an order.
func begin(t *testing.T, s *service) {
	t.Helper()
	if _, err := s.place.Start(t.Context(), s.sagas, "o", Placing{OrderID: "o", UserID: "u",
		TotalCents: 500}); err != nil {
		t.Fatal(err)
	}
}

// An order that was cancelled before its first event is cancelled, not pending for ever.
func TestCancelledBeforeItsFirstStep(t *testing.T) {
	s, _, run := cancelling(t, placeOrder)
	begin(t, s)
	if err := s.sagas.Cancel(t.Context(), "o"); err != nil {
		t.Fatal(err)
	}
	if o, err := s.Get(t.Context(), "o"); err != nil || o.Status != Pending {
		t.Errorf("before it is turned: %+v, %v", o, err)
	}
	run()
	for range 2 {
		if ended, err := s.Cancel(t.Context(), "o", "again"); !ended || err != nil {
			t.Errorf("cancelled again: %v, %v", ended, err)
		}
	}
	o, err := s.Get(t.Context(), "o")
	if err != nil || o.Status != Cancelled || o.UserID != "u" || o.Reason != "cancelled by the customer" {
		t.Errorf("%+v, %v", o, err)
	}
}

// An order that is refused while its customer cancels it is cancelled by that: a saga that gives money back which was
// never taken would be stuck.
func TestCancelledWhileItIsRefused(t *testing.T) {
	nothing := func(context.Context, *saga.Call, *Placing) error { return nil }
	s, store, run := cancelling(t, func(h *steps) *saga.Def[Placing] {
		return saga.Define[Placing]("place-order", 1,
			saga.Step("create-order", h.create).Compensate(h.cancel),
			saga.Step("process-payment", func(context.Context, *saga.Call, *Placing) error {
				return saga.Reject(errors.New("your card was declined"))
			}),
			saga.Pivot("confirm-order", nothing))
	})
	begin(t, s)
	run()
	if ended, err := settle(t.Context(), s.place.Handle(s.sagas, "o")); err != nil || !ended {
		t.Fatalf("ended %v, %v", ended, err)
	}
	store.once = true
	ended, err := s.Cancel(t.Context(), "o", "cancelled by the customer")
	if _, serr := s.sagas.Get(t.Context(), "cancel-o"); !ended || err != nil || !errors.Is(serr, saga.ErrNotFound) {
		t.Errorf("ended %v, %v; the saga that gives back: %v", ended, err, serr)
	}
}
