package notifications

import (
	"context"
	"errors"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/sillar-go/sillar/examples/shop/internal/platform"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/inbox/sqlinbox"
	"github.com/sillar-go/sillar/repository"
)

// indexes creates the indexes of notifications.
const indexes = `CREATE INDEX IF NOT EXISTS notifications_user ON notifications (user_id, id);
CREATE INDEX IF NOT EXISTS notifications_order ON notifications (order_id, id);
CREATE INDEX IF NOT EXISTS notifications_due ON notifications (status, due_at, id);
`

// New returns the notifications service.
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
	if err := inbox.EnsureSchema(ctx); err != nil {
		return err
	}
	contacts, err1 := platform.Repo[Contact](ctx, db, "contacts")
	notifications, err2 := platform.Repo[Notification](ctx, db, "notifications")
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	if err := platform.Ensure(ctx, db, indexes); err != nil {
		return err
	}
	in := &inbound{contacts, notifications, Kept, s.Log}
	if s.SMTP != "" {
		mailer, err := newSMTP(s.SMTP)
		if err != nil {
			return err
		}
		in.status = Pending
		sender := &sender{notifications, mailer, s.Log, time.Second}
		s.Go("sender", func(ctx context.Context) error { return sender.Run(s.Tel.With(ctx)) })
	}
	router, err := s.Router()
	if err != nil {
		return err
	}
	in.subscribe(router.Group("notifications", messaging.GroupConfig{Concurrency: 4, Dedup: inbox, Start: s.GroupStart(),
		Retry: platform.HandlerRetry}))
	api(s, notifications)
	operators(s, s.Broker)
	return nil
}

type view struct {
	ID            string    `json:"id"`
	UserID        string    `json:"user_id"`
	OrderID       string    `json:"order_id,omitempty"`
	Event         string    `json:"event"`
	Recipient     string    `json:"recipient"`
	Subject       string    `json:"subject"`
	Text          string    `json:"text"`
	Status        string    `json:"status" enum:"pending,sent,kept,refused"`
	CorrelationID string    `json:"correlation_id,omitempty"`
	CreatedAt     time.Time `json:"created_at"`
}

func show(n Notification) view {
	return view{n.ID, n.UserID, n.OrderID, n.Event, n.Recipient, n.Subject, n.Text, n.Status, n.CorrelationID, n.CreatedAt}
}

type listInput struct {
	platform.Paging
	OrderID string `query:"order_id" maxLength:"64"`
	UserID  string `query:"user_id" maxLength:"64" doc:"For administrators; others see their own."`
}

// api registers the HTTP operations.
func api(s *platform.Service, notifications repository.Repository[Notification]) {
	huma.Register(s.API, platform.Op("GET", "/api/v1/notifications", "List notifications", platform.SignedIn),
		func(ctx context.Context, in *listInput) (*platform.Body[platform.List[view]], error) {
			q := repository.Query[Notification]{Limit: in.Limit, After: in.After}
			if me := platform.Caller(ctx); !me.HasAnyRole("admin", platform.RoleService) {
				in.UserID = me.ID
			}
			if in.UserID != "" {
				q.Where = q.Where.And(byUser.Eq(in.UserID))
			}
			if in.OrderID != "" {
				q.Where = q.Where.And(byOrder.Eq(in.OrderID))
			}
			page, err := notifications.Find(ctx, q)
			if err != nil {
				return nil, err
			}
			return platform.Reply(platform.PageOf(page, show)), nil
		})
}
