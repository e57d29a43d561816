package inventory

import (
	"context"
	"errors"

	"github.com/sillar-go/sillar/examples/shop/internal/platform"
	"github.com/sillar-go/sillar/messaging/inbox/sqlinbox"
	"github.com/sillar-go/sillar/repository/sqldb"
	"github.com/sillar-go/sillar/repository/sqlrepo"
	"github.com/sillar-go/sillar/saga/barrier"
)

// New makes the inventory service.
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
	subscribe(router, inbox, svc)
	api(s, svc)
	return nil
}

// open makes the tables, and the service over them.
func open(ctx context.Context, db *sqldb.DB, parts ...platform.Schema) (*Service, error) {
	b, err1 := barrier.New(db, barrier.Config{})
	stocksSQL, err2 := sqlrepo.Schema[Stock](db.Dialect(), "stocks")
	reservationsSQL, err3 := sqlrepo.Schema[Reservation](db.Dialect(), "reservations")
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	if err := platform.Ensure(ctx, db, stocksSQL+reservationsSQL, append(parts, b)...); err != nil {
		return nil, err
	}
	stocks, err1 := sqlrepo.New[Stock](db, sqlrepo.Config{Table: "stocks"})
	reservations, err2 := sqlrepo.New[Reservation](db, sqlrepo.Config{Table: "reservations"})
	return &Service{tx: db, stocks: stocks, reservations: reservations, barrier: b}, errors.Join(err1, err2)
}
