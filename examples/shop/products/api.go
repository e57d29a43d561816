package products

import (
	"context"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/sillar-go/sillar/examples/shop/internal/platform"
)

// view is a product as clients see it.
type view struct {
	ID          string    `json:"id"`
	SKU         string    `json:"sku"`
	Name        string    `json:"name"`
	Description string    `json:"description"`
	PriceCents  int64     `json:"price_cents"`
	Active      bool      `json:"active" doc:"Whether it can be ordered."`
	Version     int64     `json:"version"`
	CreatedAt   time.Time `json:"created_at"`
	UpdatedAt   time.Time `json:"updated_at"`
}

func show(p Product) view {
	return view{p.ID, p.SKU, p.Name, p.Description, p.PriceCents, p.Active, p.Version, p.CreatedAt, p.UpdatedAt}
}

type createInput struct {
	Body struct {
		SKU         string `json:"sku" pattern:"^[A-Za-z0-9][A-Za-z0-9._-]*$" maxLength:"64" example:"LAMP-02"`
		Name        string `json:"name" minLength:"1" maxLength:"200" pattern:"\\S"`
		Description string `json:"description,omitempty" maxLength:"5000"`
		PriceCents  int64  `json:"price_cents" minimum:"0" maximum:"1000000000"`
		Active      *bool  `json:"active,omitempty" doc:"Whether it can be ordered. It can, unless said otherwise."`
		Stock       int64  `json:"stock,omitempty" minimum:"0" maximum:"1000000000" doc:"How many there are at first."`
	}
}

type updateInput struct {
	ID   string `path:"id" maxLength:"64"`
	Body struct {
		Version     *int64  `json:"version,omitempty" minimum:"1" doc:"The version that was read: the answer is 409 if it is another now."`
		SKU         *string `json:"sku,omitempty" pattern:"^[A-Za-z0-9][A-Za-z0-9._-]*$" maxLength:"64"`
		Name        *string `json:"name,omitempty" minLength:"1" maxLength:"200" pattern:"\\S"`
		Description *string `json:"description,omitempty" maxLength:"5000"`
		PriceCents  *int64  `json:"price_cents,omitempty" minimum:"0" maximum:"1000000000"`
		Active      *bool   `json:"active,omitempty"`
	}
}

type listInput struct {
	platform.Paging
	MinPrice int64  `query:"min_price" minimum:"0" maximum:"1000000000" doc:"In cents."`
	MaxPrice int64  `query:"max_price" minimum:"0" maximum:"1000000000" default:"1000000000" doc:"In cents."`
	Name     string `query:"name" maxLength:"200" doc:"What the name begins with."`
	Sort     string `query:"sort" enum:"price,-price,name,"`
}

type idInput struct {
	ID string `path:"id" maxLength:"64"`
}

type checkInput struct {
	Body struct {
		Items []Item `json:"items" minItems:"1" maxItems:"50"`
	}
}

type reserveInput struct {
	Key  string `header:"Idempotency-Key" required:"true" maxLength:"400" pattern:"^[ -~]+/do$" doc:"The key of the saga's step."`
	Body struct {
		OrderID string `json:"order_id" minLength:"1" maxLength:"60"`
		Items   []Item `json:"items" minItems:"1" maxItems:"50"`
	}
}

// api hangs the HTTP operations into the frame.
func api(s *platform.Service, svc *Service) {
	admin := platform.Only("admin")
	huma.Register(s.API, platform.Op("GET", "/api/v1/products", "List products", platform.Public),
		func(ctx context.Context, in *listInput) (*platform.Body[platform.List[view]], error) {
			page, err := svc.List(ctx, Search{MinPrice: in.MinPrice, MaxPrice: in.MaxPrice, NamePrefix: in.Name, SortBy: in.Sort,
				Limit: in.Limit, After: in.After})
			if err != nil {
				return nil, err
			}
			return platform.Reply(platform.PageOf(page, show)), nil
		})
	huma.Register(s.API, platform.Op("GET", "/api/v1/products/{id}", "Get a product", platform.Public),
		func(ctx context.Context, in *idInput) (*platform.Body[view], error) {
			return reply(svc.products.Get(ctx, in.ID))
		})
	huma.Register(s.API, platform.Created(platform.Op("POST", "/api/v1/products", "Add a product", admin)),
		func(ctx context.Context, in *createInput) (*platform.Body[view], error) {
			b := in.Body
			p := Product{SKU: b.SKU, Name: b.Name, Description: b.Description, PriceCents: b.PriceCents,
				Active: b.Active == nil || *b.Active}
			return reply(svc.Create(ctx, NewProduct{p, b.Stock}))
		})
	huma.Register(s.API, platform.Op("PUT", "/api/v1/products/{id}", "Change a product", admin),
		func(ctx context.Context, in *updateInput) (*platform.Body[view], error) {
			b := in.Body
			return reply(svc.Update(ctx, in.ID, Change{b.Version, b.SKU, b.Name, b.Description, b.PriceCents, b.Active}))
		})
	huma.Register(s.API, platform.Op("DELETE", "/api/v1/products/{id}", "Remove a product", admin),
		func(ctx context.Context, in *idInput) (*struct{}, error) { return nil, svc.Delete(ctx, in.ID) })
	huma.Register(s.API, platform.Op("POST", "/api/v1/products/check", "Ask what items cost, and whether they are there",
		platform.SignedIn),
		func(ctx context.Context, in *checkInput) (*platform.Body[Offer], error) {
			out, err := svc.Check(ctx, in.Body.Items)
			if err != nil {
				return nil, err
			}
			return platform.Reply(out), nil
		})
	huma.Register(s.API, platform.Op("POST", "/api/v1/products/reserve", "Have inventory reserve for an order",
		platform.Only(platform.RoleService, "admin")),
		func(ctx context.Context, in *reserveInput) (*platform.Body[Reservation], error) {
			out, err := svc.inventory.Reserve(ctx, in.Key, in.Body.OrderID, in.Body.Items)
			if err != nil {
				return nil, err
			}
			return platform.Reply(out), nil
		})
}

func reply(p Product, err error) (*platform.Body[view], error) {
	if err != nil {
		return nil, err
	}
	return platform.Reply(show(p)), nil
}
