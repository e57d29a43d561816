package repository_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/memrepo"
)

type Product struct {
	repository.Meta
	Name  string
	Price int64 // cents
	Stock int64
}

var (
	name  = repository.Text(func(p *Product) *string { return &p.Name })
	price = repository.Ord(func(p *Product) *int64 { return &p.Price })
)

func Example() {
	ctx := context.Background()
	products := memrepo.Must(memrepo.New[Product](memrepo.Config{})) // or sqlrepo, or mongorepo
	lamp, _ := products.Create(ctx, Product{Name: "Lamp", Price: 1990, Stock: 3})
	_, _ = products.Create(ctx, Product{Name: "Desk", Price: 24900, Stock: 1})

	page, err := products.Find(ctx, repository.Query[Product]{
		Where: price.Gte(1000).And(name.HasPrefix("L")),
		Sort:  []repository.Sort[Product]{price.Desc()},
		Limit: 50,
	})
	fmt.Println(len(page.Items), page.Items[0].Name, err)

	sold, err := products.Update(ctx, lamp.ID, func(_ context.Context, p *Product) error { p.Stock--; return nil })
	fmt.Println(sold.Stock, sold.Version, err)

	lamp.Stock = 100 // from what was read before the sale
	_, err = products.Replace(ctx, lamp)
	fmt.Println(errors.Is(err, repository.ErrConflict))
	// Output:
	// 1 Lamp <nil>
	// 2 2 <nil>
	// true
}

type Supplier struct {
	repository.Meta
	Name    string
	Address struct { // stored as JSON, or as a document
		City string `json:"city"`
	}
	Tags []string // stored as JSON, as an array, or as text[] where the table has that
}

var (
	city = repository.Text(func(s *Supplier) *string { return &s.Address.City })
	tags = repository.List(func(s *Supplier) *[]string { return &s.Tags })
)

// A list, and a field inside a struct that is stored as JSON, are searched on every adapter.
func ExampleList() {
	ctx := context.Background()
	suppliers := memrepo.Must(memrepo.New[Supplier](memrepo.Config{}))
	for name, of := range map[string]string{"Ana": "Ulm", "Ben": "Bonn", "Cleo": "Ulm"} {
		s := Supplier{Name: name, Tags: []string{"wood", name}}
		s.Address.City = of
		_, _ = suppliers.Create(ctx, s)
	}
	n, err := suppliers.Count(ctx, tags.Contains("wood").And(city.Eq("Ulm")))
	fmt.Println(n, err)
	// Output:
	// 2 <nil>
}

// Distinct lists the values of a field, under a filter and in order.
func ExampleDistinct() {
	ctx := context.Background()
	suppliers := memrepo.Must(memrepo.New[Supplier](memrepo.Config{}))
	for name, of := range map[string]string{"Ana": "Ulm", "Ben": "Bonn", "Cleo": "Ulm", "Dora": "Kiel"} {
		s := Supplier{Name: name}
		s.Address.City = of
		_, _ = suppliers.Create(ctx, s)
	}
	cities, err := repository.Distinct(ctx, suppliers, city, city.Lt("K"), 10)
	fmt.Println(cities, err)
	cities, err = repository.Distinct(ctx, suppliers, city, repository.Filter[Supplier]{}, 10)
	fmt.Println(cities, err)
	// Output:
	// [Bonn] <nil>
	// [Bonn Kiel Ulm] <nil>
}
