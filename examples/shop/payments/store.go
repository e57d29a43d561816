package payments

import (
	"context"
	"time"

	"github.com/sillar-go/sillar/examples/shop/internal/platform"
	"github.com/sillar-go/sillar/repository/sqldb"
	"github.com/sillar-go/sillar/saga/barrier"
)

// indexes are what payments are looked up by.
const indexes = `CREATE INDEX IF NOT EXISTS payments_order_id ON payments (order_id);
CREATE INDEX IF NOT EXISTS payments_refund_key ON payments (refund_key);
`

// New makes the payments service. It publishes nothing: the orders service publishes what became of payments.
func New(ctx context.Context, cfg platform.Config) (*platform.Service, error) {
	return platform.Make(ctx, cfg, build)
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
	s.Hourly("barrier marks", func(ctx context.Context) (int64, error) {
		return svc.barrier.Prune(ctx, time.Now().Add(-platform.KeepMarks))
	})
	api(s, svc)
	totals(s, db)
	if s.Faults {
		faults(s, processor)
	}
	return nil
}

// open makes the tables, and the service over them, without a processor.
func open(ctx context.Context, db *sqldb.DB) (*Service, error) {
	b, err := barrier.New(db, barrier.Config{})
	if err != nil {
		return nil, err
	}
	s := &Service{tx: db, barrier: b}
	err = platform.Tables(ctx, db, func(ctx context.Context) (err error) {
		if s.payments, err = platform.Repo[Payment](ctx, db, "payments", []string{"charge_key"}); err != nil {
			return err
		}
		return platform.Ensure(ctx, db, indexes+ledger, b)
	})
	return s, err
}
