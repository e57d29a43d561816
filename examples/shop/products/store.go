package products

import (
	"context"

	"github.com/sillar-go/sillar/examples/shop/internal/platform"
)

// indexes are what lists are sorted by.
const indexes = `CREATE INDEX IF NOT EXISTS products_price ON products (price_cents, id);
CREATE INDEX IF NOT EXISTS products_name ON products (name, id);
`

// New makes the products service.
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
	svc := &Service{tx: db, events: events{box}}
	err = platform.Tables(ctx, db, func(ctx context.Context) (err error) {
		if svc.products, err = platform.Repo[Product](ctx, db, "products", []string{"sku"}); err != nil {
			return err
		}
		return platform.Ensure(ctx, db, indexes)
	})
	if err != nil {
		return err
	}
	peer, err := s.Peer("inventory", s.Peers.Inventory)
	if err != nil {
		return err
	}
	svc.inventory = inventory{peer, s.Log}
	api(s, svc)
	return svc.Seed(ctx, Catalogue)
}
