package products

import (
	"context"

	"github.com/sillar-go/sillar/repository"
)

// Service is what can be done with products.
type Service struct {
	tx        repository.Transactor
	products  Repository
	events    Events
	inventory Inventory
}

// Create adds a product, and publishes it and its stock.
func (s *Service) Create(ctx context.Context, n NewProduct) (Product, error) {
	return s.products.Create(ctx, n.Product, func(ctx context.Context, p *Product) error {
		return s.events.ProductCreated(ctx, p, n.Stock)
	})
}

// Change is what to change of a product: what is not nil. With a Version it fails where that is not the product's.
type Change struct {
	Version                *int64
	SKU, Name, Description *string
	PriceCents             *int64
	Active                 *bool
}

// Update changes a product.
func (s *Service) Update(ctx context.Context, id string, c Change) (Product, error) {
	return s.products.Update(ctx, id, func(ctx context.Context, p *Product) error {
		if c.Version != nil && *c.Version != p.Version {
			return &repository.ConflictError{ID: id, Expected: *c.Version, Actual: p.Version}
		}
		set(&p.SKU, c.SKU)
		set(&p.Name, c.Name)
		set(&p.Description, c.Description)
		set(&p.PriceCents, c.PriceCents)
		set(&p.Active, c.Active)
		return s.events.ProductUpdated(ctx, p)
	})
}

func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

// Delete removes a product.
func (s *Service) Delete(ctx context.Context, id string) error {
	return s.products.Delete(ctx, id, s.events.ProductDeleted)
}

// Search says which products, and how they are sorted: by price, -price, name, or else by id.
type Search struct {
	MinPrice, MaxPrice int64
	NamePrefix, SortBy string
	Limit              int
	After              string
}

// List returns a page of products.
func (s *Service) List(ctx context.Context, f Search) (repository.Page[Product], error) {
	q := repository.Query[Product]{Limit: f.Limit, After: f.After,
		Where: byPrice.Gte(f.MinPrice).And(byPrice.Lte(f.MaxPrice))}
	if f.NamePrefix != "" {
		q.Where = q.Where.And(byName.HasPrefix(f.NamePrefix))
	}
	switch f.SortBy {
	case "price":
		q.Sort = []repository.Sort[Product]{byPrice.Asc()}
	case "-price":
		q.Sort = []repository.Sort[Product]{byPrice.Desc()}
	case "name":
		q.Sort = []repository.Sort[Product]{byName.Asc()}
	}
	return s.products.Find(ctx, q)
}

// Check prices items, and asks inventory whether they are there.
func (s *Service) Check(ctx context.Context, items []Item) (Offer, error) {
	ids := make([]string, len(items))
	for i, it := range items {
		ids[i] = it.ProductID
	}
	list, err := s.products.GetMany(ctx, ids)
	if err != nil {
		return Offer{}, err
	}
	found := map[string]Product{}
	for _, p := range list {
		found[p.ID] = p
	}
	out, err := offer(items, found)
	if err != nil {
		return Offer{}, err
	}
	available, err := s.inventory.Available(ctx, items)
	if err != nil {
		return Offer{}, err
	}
	out.Available = true
	for i := range out.Items {
		it := &out.Items[i]
		it.Available = available[it.ProductID] >= it.Quantity
		out.Available = out.Available && it.Available
	}
	return out, nil
}
