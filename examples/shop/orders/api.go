package orders

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/sillar-go/sillar/examples/shop/internal/platform"
	"github.com/sillar-go/sillar/observability"
	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/eventstore"
)

// view is an order as clients see it.
type view struct {
	ID         string    `json:"id"`
	UserID     string    `json:"user_id"`
	Status     Status    `json:"status" enum:"pending,paid,shipped,delivered,cancelled"`
	Items      []Item    `json:"items"`
	TotalCents int64     `json:"total_cents"`
	PaymentID  string    `json:"payment_id,omitempty"`
	Reason     string    `json:"reason,omitempty" doc:"Why it was cancelled."`
	CreatedAt  time.Time `json:"created_at"`
	UpdatedAt  time.Time `json:"updated_at"`
}

func show(o Order) view {
	return view{o.ID, o.UserID, o.Status, o.Items, o.TotalCents, o.PaymentID, o.Reason, o.CreatedAt, o.UpdatedAt}
}

type placeInput struct {
	Key  string `header:"Idempotency-Key" maxLength:"128" pattern:"^[ -~]*$" doc:"Makes the request once: the same key gives the same order."`
	Body struct {
		Items         []line `json:"items" minItems:"1" maxItems:"50"`
		PaymentMethod string `json:"payment_method" minLength:"1" maxLength:"64" example:"pm_card_visa"`
	}
}

// output is an order. The HTTP status tells whether its saga has ended.
type output struct {
	Status   int
	Location string `header:"Location"`
	Body     view
}

type idInput struct {
	ID string `path:"id" maxLength:"64"`
}

type listInput struct {
	platform.Paging
	UserID string `query:"user_id" maxLength:"64" doc:"For administrators; others see their own."`
	Status string `query:"status" enum:"pending,paid,shipped,delivered,cancelled,"`
}

// api registers the HTTP operations.
func api(s *platform.Service, svc *service) {
	place(s, svc)
	huma.Register(s.API, platform.Op("GET", "/api/v1/orders", "List orders", platform.SignedIn),
		func(ctx context.Context, in *listInput) (*platform.Body[platform.List[view]], error) {
			return svc.list(ctx, in)
		})
	huma.Register(s.API, platform.Op("GET", "/api/v1/orders/{id}", "Get an order", platform.SignedIn),
		func(ctx context.Context, in *idInput) (*platform.Body[view], error) {
			o, err := svc.visible(ctx, in.ID)
			if err != nil {
				return nil, err
			}
			return platform.Reply(show(o)), nil
		})
	huma.Register(s.API, platform.Op("GET", "/api/v1/orders/{id}/events", "List the events of an order",
		platform.SignedIn),
		func(ctx context.Context, in *idInput) (*platform.Body[[]happened], error) {
			return svc.history(ctx, in.ID)
		})
	huma.Register(s.API, platform.Op("POST", "/api/v1/orders/{id}/cancel", "Cancel an order that has not been shipped",
		platform.SignedIn),
		func(ctx context.Context, in *idInput) (*output, error) {
			if _, err := svc.visible(ctx, in.ID); err != nil {
				return nil, err
			}
			ended, err := svc.Cancel(ctx, in.ID, "cancelled by the customer")
			if err != nil {
				return nil, stateProblem(err)
			}
			return svc.answer(ctx, in.ID, http.StatusOK, ended)
		})
	for verb, decide := range map[string]func(Order) ([]Event, error){"ship": Order.ship, "deliver": Order.deliver} {
		past := map[string]string{"ship": "shipped", "deliver": "delivered"}[verb]
		huma.Register(s.API, platform.Op("POST", "/api/v1/orders/{id}/"+verb, "Record that an order was "+past,
			platform.Only("admin")),
			func(ctx context.Context, in *idInput) (*platform.Body[view], error) {
				o, err := svc.advance(ctx, in.ID, decide)
				if err != nil {
					return nil, stateProblem(err)
				}
				return platform.Reply(show(o)), nil
			})
	}
}

// place adds the placing of orders.
func place(s *platform.Service, svc *service) {
	place := platform.Created(platform.Op("POST", "/api/v1/orders", "Place an order", platform.SignedIn))
	place.Description = "Answers 201 when the order is paid or refused within 5 s, else 202 with the order's location."
	huma.Register(s.API, place, func(ctx context.Context, in *placeInput) (*output, error) {
		r := Request{UserID: platform.Caller(ctx).ID, Lines: in.Body.Items, PaymentMethod: in.Body.PaymentMethod, Key: in.Key}
		seen := map[string]bool{}
		for _, it := range in.Body.Items {
			if seen[it.ProductID] {
				return nil, platform.Invalid("items", "a product is named twice: "+it.ProductID)
			}
			seen[it.ProductID] = true
		}
		return observability.TrackOperation(ctx, "place_order", func(ctx context.Context) (*output, error) {
			id, err := svc.Place(ctx, r)
			if err != nil {
				return nil, err
			}
			observability.AddLogAttrs(ctx, slog.String("order_id", id))
			ended, err := settle(ctx, svc.place.Handle(svc.sagas, id))
			if err != nil {
				return nil, err
			}
			return svc.answer(ctx, id, http.StatusCreated, ended)
		})
	})
}

// stateProblem makes a 409 of what an order's state forbids.
func stateProblem(err error) error {
	if errors.Is(err, ErrState) {
		return platform.Fail(http.StatusConflict, "state", err.Error()[len("orders: "):])
	}
	return err
}

// answer is the order, with the given status when its saga has ended, else 202.
func (s *service) answer(ctx context.Context, id string, done int, ended bool) (*output, error) {
	o, err := s.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	if !ended {
		done = http.StatusAccepted
	}
	return &output{Status: done, Location: "/api/v1/orders/" + id, Body: show(o)}, nil
}

// visible returns an order that the caller may see; orders of other users are reported as not found.
func (s *service) visible(ctx context.Context, id string) (Order, error) {
	o, err := s.Get(ctx, id)
	if err == nil && !platform.MaySee(ctx, o.UserID) {
		return Order{}, repository.ErrNotFound
	}
	return o, err
}

func (s *service) list(ctx context.Context, in *listInput) (*platform.Body[platform.List[view]], error) {
	q := repository.Query[Row]{Limit: in.Limit, After: in.After, Sort: []repository.Sort[Row]{rowPlaced.Desc()}}
	if me := platform.Caller(ctx); !me.HasAnyRole("admin", platform.RoleService) {
		in.UserID = me.ID
	}
	if in.UserID != "" {
		q.Where = q.Where.And(rowUser.Eq(in.UserID))
	}
	if in.Status != "" {
		q.Where = q.Where.And(rowStatus.Eq(Status(in.Status)))
	}
	page, err := s.rows.Find(ctx, q)
	if err != nil {
		return nil, err
	}
	return platform.Reply(platform.PageOf(page, func(r Row) view {
		return view{ID: r.ID, UserID: r.UserID, Status: r.Status, Items: r.Items, TotalCents: r.TotalCents, Reason: r.Reason,
			CreatedAt: r.PlacedAt, UpdatedAt: r.UpdatedAt}
	})), nil
}

// happened is an event that clients receive.
type happened struct {
	Version       int64           `json:"version"`
	Type          string          `json:"type"`
	Data          json.RawMessage `json:"data"`
	CorrelationID string          `json:"correlation_id,omitempty"`
	Time          time.Time       `json:"time"`
}

func (s *service) history(ctx context.Context, id string) (*platform.Body[[]happened], error) {
	if _, err := s.visible(ctx, id); err != nil {
		return nil, err
	}
	out := []happened{}
	for e, err := range eventstore.Load(ctx, s.store, s.orders.Stream(id)) {
		if err != nil {
			return nil, err
		}
		out = append(out, happened{e.Version, e.Type, e.Data, e.Metadata["X-Correlation-ID"], e.Time})
	}
	return platform.Reply(out), nil
}
