package products

import (
	"context"
	"errors"

	"github.com/sillar-go/sillar/repository"
)

// NewProduct is a product to be made, and what there is of it.
type NewProduct struct {
	Product
	Stock int64
}

// Catalogue is what an empty shop begins with.
var Catalogue = []NewProduct{
	seed("prod-lamp", "LAMP-01", "Desk lamp", "Brass arm, warm light.", 4_990, 120),
	seed("prod-mug", "MUG-01", "Stoneware mug", "Holds 350 ml; survives the dishwasher.", 1_250, 400),
	seed("prod-chair", "CHAIR-01", "Oak chair", "Solid oak, oiled by hand.", 18_900, 40),
	seed("prod-notebook", "NOTE-01", "Notebook", "192 dotted pages, sewn.", 1_490, 600),
	seed("prod-kettle", "KETTLE-01", "Kettle", "1.2 l, gooseneck.", 6_450, 80),
	seed("prod-rug", "RUG-01", "Wool rug", "170 by 240 cm, woven in Arequipa.", 32_000, 15),
}

func seed(id, sku, name, description string, cents, stock int64) NewProduct {
	return NewProduct{Product{Meta: repository.Meta{ID: id}, SKU: sku, Name: name, Description: description,
		PriceCents: cents, Active: true}, stock}
}

// Seed makes the catalogue where there are no products, all of it or, if another process is faster, nothing.
func (s *Service) Seed(ctx context.Context, catalogue []NewProduct) error {
	err := s.tx.InTx(ctx, func(ctx context.Context) error {
		if n, err := s.products.Count(ctx, repository.Filter[Product]{}); err != nil || n > 0 {
			return err
		}
		for _, p := range catalogue {
			if _, err := s.Create(ctx, p); err != nil {
				return err
			}
		}
		return nil
	})
	if errors.Is(err, repository.ErrUnique) {
		return nil
	}
	return err
}
