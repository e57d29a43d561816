package inventory

import (
	"context"
	"time"

	"github.com/sillar-go/sillar/examples/shop/internal/platform"
	"github.com/sillar-go/sillar/messaging/inbox/sqlinbox"
	"github.com/sillar-go/sillar/repository/sqldb"
	"github.com/sillar-go/sillar/saga/barrier"
)

// New returns the inventory service.
func New(ctx context.Context, cfg platform.Config) (*platform.Service, error) {
	return platform.Make(ctx, cfg, build)
}

func build(ctx context.Context, s *platform.Service) error {
	db, err := s.OpenSQL(ctx)
	if err != nil {
		return err
	}
	inbox, err := sqlinbox.New(db, sqlinbox.Config{Logger: s.Log})
	if err != nil {
		return err
	}
	svc, err := open(ctx, db, inbox)
	if err != nil {
		return err
	}
	router, err := s.Router()
	if err != nil {
		return err
	}
	subscribe(router, inbox, s.GroupStart(), svc)
	s.Hourly("barrier marks", func(ctx context.Context) (int64, error) {
		return svc.barrier.Prune(ctx, time.Now().Add(-platform.KeepMarks))
	})
	api(s, svc)
	return nil
}

// open creates the tables and returns the service on them.
func open(ctx context.Context, db *sqldb.DB, parts ...platform.Schema) (*Service, error) {
	b, err := barrier.New(db, barrier.Config{})
	if err != nil {
		return nil, err
	}
	s := &Service{tx: db, barrier: b}
	err = platform.Tables(ctx, db, func(ctx context.Context) (err error) {
		if s.stocks, err = platform.Repo[Stock](ctx, db, "stocks"); err != nil {
			return err
		}
		if s.reservations, err = platform.Repo[Reservation](ctx, db, "reservations"); err != nil {
			return err
		}
		return platform.Ensure(ctx, db, "", append(parts, b)...)
	})
	return s, err
}
