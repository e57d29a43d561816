package payments

import (
	"cmp"
	"context"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/sillar-go/sillar/examples/shop/internal/platform"
	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/sqldb"
)

// view is a payment as clients see it.
type view struct {
	ID          string    `json:"id"`
	OrderID     string    `json:"order_id"`
	UserID      string    `json:"user_id"`
	AmountCents int64     `json:"amount_cents"`
	Method      string    `json:"payment_method"`
	Status      Status    `json:"status" enum:"captured,refunded,declined"`
	Reason      string    `json:"reason,omitempty" doc:"Why it was declined."`
	CreatedAt   time.Time `json:"created_at"`
	UpdatedAt   time.Time `json:"updated_at"`
}

func show(p Payment) view {
	return view{p.ID, p.OrderID, p.UserID, p.AmountCents, p.Method, p.Status, p.Reason, p.CreatedAt, p.UpdatedAt}
}

type captureInput struct {
	Key  string `header:"Idempotency-Key" required:"true" maxLength:"400" pattern:"^[ -~]+/do$" doc:"The key of the saga's step."`
	Body struct {
		OrderID     string `json:"order_id" minLength:"1" maxLength:"60"`
		UserID      string `json:"user_id" minLength:"1" maxLength:"64"`
		AmountCents int64  `json:"amount_cents" minimum:"1" maximum:"100000000000"`
		Method      string `json:"payment_method" minLength:"1" maxLength:"64" example:"pm_card_visa"`
	}
}

type refundInput struct {
	Key string `header:"Idempotency-Key" required:"true" maxLength:"400" pattern:"^[ -~]+/(do|undo)$" doc:"The key of the saga's step, or of the compensation of the payment's."`
	ID  string `path:"id" maxLength:"64"`
}

type result struct {
	PaymentID string `json:"payment_id"`
	Status    Status `json:"status" enum:"captured,refunded,declined,none" doc:"none: the payment was never made and is refused from now on."`
}

type listInput struct {
	platform.Paging
	OrderID string `query:"order_id" maxLength:"64"`
}

type idInput struct {
	ID string `path:"id" maxLength:"64"`
}

// api registers the HTTP operations.
func api(s *platform.Service, svc *Service) {
	pay(s, svc)
	huma.Register(s.API, platform.Op("GET", "/api/v1/payments/{id}", "Get a payment", platform.SignedIn),
		func(ctx context.Context, in *idInput) (*platform.Body[view], error) {
			p, err := svc.payments.Get(ctx, in.ID)
			if err == nil && !platform.MaySee(ctx, p.UserID) {
				err = repository.ErrNotFound // payments of other users are reported as not found
			}
			if err != nil {
				return nil, err
			}
			return platform.Reply(show(p)), nil
		})
}

// pay adds what other services and administrators use.
func pay(s *platform.Service, svc *Service) {
	inside := platform.Only(platform.RoleService, "admin")
	huma.Register(s.API, platform.Created(platform.Op("POST", "/api/v1/payments", "Take the money of an order", inside)),
		func(ctx context.Context, in *captureInput) (*platform.Body[result], error) {
			b := in.Body
			return reply(svc.Capture(ctx, Charge{Key: in.Key, OrderID: b.OrderID, UserID: b.UserID, AmountCents: b.AmountCents,
				Method: b.Method}))
		})
	huma.Register(s.API, platform.Op("POST", "/api/v1/payments/{id}/refund", "Give the money back", inside),
		func(ctx context.Context, in *refundInput) (*platform.Body[result], error) {
			return reply(svc.Refund(ctx, in.Key, in.ID))
		})
	huma.Register(s.API, platform.Op("GET", "/api/v1/payments", "List payments", inside),
		func(ctx context.Context, in *listInput) (*platform.Body[platform.List[view]], error) {
			q := repository.Query[Payment]{Limit: in.Limit, After: in.After}
			if in.OrderID != "" {
				q.Where = byOrder.Eq(in.OrderID)
			}
			page, err := svc.payments.Find(ctx, q)
			if err != nil {
				return nil, err
			}
			return platform.Reply(platform.PageOf(page, show)), nil
		})
}

func reply(p Payment, err error) (*platform.Body[result], error) {
	if err != nil {
		return nil, err
	}
	return platform.Reply(result{p.ID, cmp.Or(p.Status, "none")}), nil
}

// totals is for operators.
func totals(s *platform.Service, db *sqldb.DB) {
	huma.Register(s.API, platform.Op("GET", "/api/v1/totals",
		"How many payments there are of each status, and their worth", platform.Only("admin")),
		func(ctx context.Context, _ *struct{}) (*platform.Body[platform.List[platform.Total]], error) {
			list, err := platform.Totals(ctx, db, "payments", "amount_cents")
			return platform.Reply(platform.List[platform.Total]{Items: list}), err
		})
}

type processorView struct {
	Mode      string `json:"mode" enum:"ok,slow,down"`
	HeldCents int64  `json:"held_cents" doc:"Amount captured and not voided, by the processor's ledger."`
}

type modeInput struct {
	Body struct {
		Mode string `json:"mode" enum:"ok,slow,down"`
	}
}

// faults registers the operations that inject faults into the processor.
func faults(s *platform.Service, p *simulator) {
	look := func(ctx context.Context, _ *struct{}) (*platform.Body[processorView], error) {
		held, err := p.Held(ctx)
		if err != nil {
			return nil, err
		}
		return platform.Reply(processorView{p.Mode(), held}), nil
	}
	huma.Register(s.API, platform.Op("GET", "/api/v1/processor", "Get the mode of the payment processor",
		platform.Only("admin")), look)
	huma.Register(s.API, platform.Op("PUT", "/api/v1/processor", "Set the mode of the payment processor",
		platform.Only("admin")),
		func(ctx context.Context, in *modeInput) (*platform.Body[processorView], error) {
			p.SetMode(in.Body.Mode)
			return look(ctx, nil)
		})
}
