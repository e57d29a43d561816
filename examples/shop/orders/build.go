package orders

import (
	"context"
	"errors"
	"time"

	"github.com/sillar-go/sillar/examples/shop/internal/platform"
	"github.com/sillar-go/sillar/repository/eventstore"
	"github.com/sillar-go/sillar/repository/eventstore/sqlevents"
	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/sagasql"
)

// requests creates the table of idempotency keys.
const requests = `CREATE TABLE IF NOT EXISTS order_requests (
	subject TEXT NOT NULL, request_key TEXT NOT NULL, hash TEXT NOT NULL, order_id TEXT NOT NULL,
	created_at BIGINT NOT NULL,
	PRIMARY KEY (subject, request_key));
`

// indexes creates the indexes that lists are sorted by.
const indexes = `CREATE INDEX IF NOT EXISTS orders_placed ON orders (placed_at DESC, id);
CREATE INDEX IF NOT EXISTS orders_user ON orders (user_id, placed_at DESC, id);
CREATE INDEX IF NOT EXISTS orders_status ON orders (status, placed_at DESC, id);
`

// New returns the orders service.
func New(ctx context.Context, cfg platform.Config) (*platform.Service, error) {
	return platform.Make(ctx, cfg, build)
}

func build(ctx context.Context, s *platform.Service) error {
	db, err := s.OpenSQL(ctx)
	if err != nil {
		return err
	}
	box, err := s.Outbox(ctx, db)
	if err != nil {
		return err
	}
	events, err1 := sqlevents.New(db, sqlevents.Config{OnAppend: toOutbox(box), Propagator: s.Tel.Propagator})
	sagas, err2 := sagasql.New(db, sagasql.Config{History: true})
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	if err := platform.Ensure(ctx, db, requests, events, sagas); err != nil {
		return err
	}
	rows, err1 := platform.Repo[Row](ctx, db, "orders")
	orders, err2 := eventstore.NewAggregate(events, eventstore.Decider[Order, Event]{Evolve: evolve}, types,
		eventstore.AggregateConfig{Category: "order", Logger: s.Log})
	peers, err3 := newPeers(s)
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	if err := platform.Ensure(ctx, db, indexes); err != nil {
		return err
	}
	h := &steps{orders, peers, s.Log}
	svc := &service{db: db, orders: orders, store: events, rows: rows, peers: peers, place: placeOrder(h),
		cancel: cancelOrder(h)}
	svc.sagas, err = saga.New(sagas, saga.Config{Name: s.Name, Logger: s.Log, TracerProvider: s.Tel.TracerProvider,
		MeterProvider: s.Tel.MeterProvider, Propagator: s.Tel.Propagator, DrainTimeout: 6 * time.Second, OnChange: s.OnSaga},
		svc.place, svc.cancel)
	if err != nil {
		return err
	}
	projector, err := eventstore.NewProjector(events, db, project(orders, rows), eventstore.ProjectorConfig{Name: "orders",
		Logger: s.Log})
	if err != nil {
		return err
	}
	s.Hourly("idempotency keys", svc.forgetRequests)
	s.Hourly("ended sagas", func(ctx context.Context) (int64, error) {
		return svc.sagas.Prune(ctx, time.Now().Add(-platform.KeepSagas))
	})
	s.Go("sagas", svc.sagas.Run)
	s.Go("projector", projector.Run)
	api(s, svc)
	operators(s, svc, sagas.History)
	return nil
}
