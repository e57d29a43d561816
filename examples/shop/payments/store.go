package payments

import (
	"context"
	"errors"

	"github.com/sillar-go/sillar/examples/shop/internal/platform"
	"github.com/sillar-go/sillar/repository/sqldb"
	"github.com/sillar-go/sillar/repository/sqlrepo"
	"github.com/sillar-go/sillar/saga/barrier"
)

// indexes are what payments are looked up by.
const indexes = `CREATE INDEX IF NOT EXISTS payments_order_id ON payments (order_id);
CREATE INDEX IF NOT EXISTS payments_refund_key ON payments (refund_key);
`

// New makes the payments service. It publishes nothing: the orders tell what became of their payments.
func New(ctx context.Context, cfg platform.Config) (*platform.Service, error) {
	s, err := platform.New(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if err := build(ctx, s); err != nil {
		s.Abandon(ctx)
		return nil, err
	}
	return s, nil
}

func build(ctx context.Context, s *platform.Service) error {
	db, err := s.OpenSQL(ctx)
	if err != nil {
		return err
	}
	svc, err := open(ctx, db)
	if err != nil {
		return err
	}
	processor := newSimulator(db)
	svc.processor, svc.log = processor, s.Log
	api(s, svc)
	if s.Faults {
		faults(s, processor)
	}
	return nil
}

// open makes the tables, and the service over them, without a processor.
func open(ctx context.Context, db *sqldb.DB) (*Service, error) {
	b, err1 := barrier.New(db, barrier.Config{})
	schema, err2 := sqlrepo.Schema[Payment](db.Dialect(), "payments", []string{"charge_key"})
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	if err := platform.Ensure(ctx, db, schema+indexes+ledger, b); err != nil {
		return nil, err
	}
	payments, err := sqlrepo.New[Payment](db, sqlrepo.Config{Table: "payments"})
	return &Service{tx: db, payments: payments, barrier: b}, err
}
