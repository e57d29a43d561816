package inventory

import (
	"context"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/sillar-go/sillar/examples/shop/internal/platform"
	"github.com/sillar-go/sillar/repository"
)

// view is the stock that clients receive.
type view struct {
	ProductID string    `json:"product_id"`
	OnHand    int64     `json:"on_hand"`
	Reserved  int64     `json:"reserved"`
	Available int64     `json:"available"`
	Version   int64     `json:"version"`
	UpdatedAt time.Time `json:"updated_at"`
}

func show(s Stock) view {
	return view{s.ID, s.OnHand, s.Reserved, s.Available(), s.Version, s.UpdatedAt}
}

type checkInput struct {
	Body struct {
		Items []Item `json:"items" minItems:"1" maxItems:"50"`
	}
}

type checkedItem struct {
	ProductID string `json:"product_id"`
	Quantity  int64  `json:"quantity"`
	Available int64  `json:"available" doc:"How many can still be ordered."`
}

type checked struct {
	CheckID   string        `json:"check_id"`
	Available bool          `json:"available" doc:"Whether all items are available. Nothing is reserved."`
	Items     []checkedItem `json:"items"`
}

type reserveInput struct {
	Key  string `header:"Idempotency-Key" required:"true" maxLength:"400" pattern:"^[ -~]+/do$" doc:"The key of the saga's step."`
	Body struct {
		OrderID string `json:"order_id" minLength:"1" maxLength:"60"`
		Items   []Item `json:"items" minItems:"1" maxItems:"50"`
	}
}

type releaseInput struct {
	Key string `header:"Idempotency-Key" required:"true" maxLength:"400" pattern:"^[ -~]+/undo$" doc:"The key of the saga's compensation."`
	ID  string `path:"id" maxLength:"64"`
}

type endInput struct {
	Key string `header:"Idempotency-Key" required:"true" maxLength:"400" pattern:"^[ -~]+/do$" doc:"The key of the saga's step."`
	ID  string `path:"id" maxLength:"64"`
}

type reserved struct {
	ReservationID string `json:"reservation_id"`
	Status        Status `json:"status" enum:"reserved,released,committed,restocked"`
}

type productInput struct {
	ID string `path:"product_id" maxLength:"64"`
}

type setInput struct {
	ID   string `path:"product_id" maxLength:"64"`
	Body struct {
		OnHand int64 `json:"on_hand" minimum:"0" maximum:"1000000000"`
	}
}

// api registers the HTTP operations.
func api(s *platform.Service, svc *Service) {
	inside := platform.Only(platform.RoleService, "admin")
	huma.Register(s.API, platform.Op("POST", "/api/v1/inventory/check", "Check availability", platform.SignedIn),
		func(ctx context.Context, in *checkInput) (*platform.Body[checked], error) {
			return check(ctx, svc, in.Body.Items)
		})
	huma.Register(s.API, platform.Op("POST", "/api/v1/inventory/reserve", "Reserve for an order", inside),
		func(ctx context.Context, in *reserveInput) (*platform.Body[reserved], error) {
			return reply(svc.Reserve(ctx, in.Key, in.Body.OrderID, in.Body.Items))
		})
	huma.Register(s.API, platform.Op("DELETE", "/api/v1/inventory/reserve/{id}", "Release a reservation", inside),
		func(ctx context.Context, in *releaseInput) (*struct{}, error) {
			return nil, svc.Release(ctx, in.Key, in.ID)
		})
	huma.Register(s.API, platform.Op("POST", "/api/v1/inventory/reserve/{id}/commit", "Commit a reservation", inside),
		func(ctx context.Context, in *endInput) (*platform.Body[reserved], error) {
			return reply(svc.Commit(ctx, in.Key, in.ID))
		})
	huma.Register(s.API, platform.Op("POST", "/api/v1/inventory/reserve/{id}/restock",
		"Restock the goods of a reservation", inside),
		func(ctx context.Context, in *endInput) (*platform.Body[reserved], error) {
			return reply(svc.Restock(ctx, in.Key, in.ID))
		})
	huma.Register(s.API, platform.Op("GET", "/api/v1/inventory", "List the stock", inside),
		func(ctx context.Context, in *platform.Paging) (*platform.Body[platform.List[view]], error) {
			page, err := svc.stocks.Find(ctx, repository.Query[Stock]{Limit: in.Limit, After: in.After})
			if err != nil {
				return nil, err
			}
			return platform.Reply(platform.PageOf(page, show)), nil
		})
	huma.Register(s.API, platform.Op("GET", "/api/v1/inventory/{product_id}", "Get the stock of a product",
		platform.SignedIn),
		func(ctx context.Context, in *productInput) (*platform.Body[view], error) {
			return stock(svc.stocks.Get(ctx, in.ID))
		})
	huma.Register(s.API, platform.Op("PUT", "/api/v1/inventory/{product_id}", "Set the stock of a product",
		platform.Only("admin")),
		func(ctx context.Context, in *setInput) (*platform.Body[view], error) {
			return stock(svc.Set(ctx, in.ID, in.Body.OnHand))
		})
}

func check(ctx context.Context, svc *Service, items []Item) (*platform.Body[checked], error) {
	if err := once(items); err != nil {
		return nil, err
	}
	available, err := svc.Available(ctx, items)
	if err != nil {
		return nil, err
	}
	id, err := uuid.NewV7()
	if err != nil {
		return nil, err
	}
	out := checked{CheckID: id.String(), Available: true}
	for i, it := range items {
		out.Items = append(out.Items, checkedItem{it.ProductID, it.Quantity, available[i]})
		out.Available = out.Available && it.Quantity <= available[i]
	}
	return platform.Reply(out), nil
}

func stock(s Stock, err error) (*platform.Body[view], error) {
	if err != nil {
		return nil, err
	}
	return platform.Reply(show(s)), nil
}

func reply(r Reservation, err error) (*platform.Body[reserved], error) {
	if err != nil {
		return nil, err
	}
	return platform.Reply(reserved{r.ID, r.Status}), nil
}
