package notifications

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/observability"
	"github.com/sillar-go/sillar/repository"
)

// userEvent is the payload of users.*.
type userEvent struct {
	UserID   string `json:"user_id"`
	Username string `json:"username"`
	Email    string `json:"email"`
	Version  int64  `json:"version"` // 0 in events of an older users service
}

// orderEvent is the payload of orders.*.
type orderEvent struct {
	OrderID    string `json:"order_id"`
	UserID     string `json:"user_id"`
	TotalCents int64  `json:"total_cents"`
	Reason     string `json:"reason"`
}

// data is the input of the letter templates.
type data struct{ Username, OrderID, Total, Reason string }

// errUnknownUser means that users.created has not been handled yet: the event is tried again a little later.
var errUnknownUser = errors.New("notifications: the user is not known yet")

var errNobody = errors.New("notifications: an event of a user without id or address")

type inbound struct {
	contacts      repository.Repository[Contact]
	notifications repository.Repository[Notification]
	status        string // of new notifications: Pending, or Kept where nothing is sent
	log           *slog.Logger
}

// subscribe registers the event handlers. Each event is handled once: the inbox notes it in the transaction that
// stores the notification.
func (in *inbound) subscribe(g *messaging.Group) {
	messaging.Handle(g, "users.*", in.user)
	messaging.Handle(g, "orders.*", in.order)
}

func (in *inbound) user(ctx context.Context, m messaging.Message[userEvent]) error {
	if m.Data.UserID == "" || m.Data.Email == "" {
		return messaging.Permanent(errNobody)
	}
	c := Contact{Meta: repository.Meta{ID: m.Data.UserID}}
	_, err := in.contacts.Update(ctx, c.ID, func(_ context.Context, old *Contact) error {
		old.learn(m.Type, m.Data)
		return nil
	})
	if errors.Is(err, repository.ErrNotFound) {
		c.learn(m.Type, m.Data)
		_, err = in.contacts.Create(ctx, c)
	}
	if err != nil {
		return err
	}
	return in.store(ctx, m.Envelope, c.ID, m.Data.Email, "", data{Username: m.Data.Username})
}

// learn stores the contact of a user unless a later version is stored. It erases deleted users, which stay deleted.
func (c *Contact) learn(topic string, u userEvent) {
	if c.Gone || u.Version < c.Told {
		return
	}
	c.Username, c.Email, c.Told = u.Username, u.Email, u.Version
	if topic == "users.deleted" {
		c.Username, c.Email, c.Gone = "", "", true
	}
}

func (in *inbound) order(ctx context.Context, m messaging.Message[orderEvent]) error {
	c, err := in.contacts.Get(ctx, m.Data.UserID)
	if errors.Is(err, repository.ErrNotFound) {
		return fmt.Errorf("%w: %s", errUnknownUser, m.Data.UserID)
	}
	if err != nil {
		return err
	}
	if c.Gone {
		return nil
	}
	total := fmt.Sprintf("%d.%02d €", m.Data.TotalCents/100, m.Data.TotalCents%100)
	return in.store(ctx, m.Envelope, c.ID, c.Email, m.Data.OrderID, data{c.Username, m.Data.OrderID, total, m.Data.Reason})
}

func (in *inbound) store(ctx context.Context, e messaging.Envelope, userID, email, orderID string, d data) error {
	l, ok := letters[e.Type]
	if !ok {
		return nil // this event needs no letter
	}
	subject, text, err := l.render(d)
	if err != nil {
		return messaging.Permanent(err)
	}
	n, err := in.notifications.Create(ctx, Notification{UserID: userID, OrderID: orderID, Event: e.Type, Recipient: email,
		Subject: subject, Text: text, Status: in.status, DueAt: time.Now(), CorrelationID: observability.CorrelationID(ctx)})
	if err == nil {
		in.log.InfoContext(ctx, "notification written", "notification", n.ID, "event", e.Type, "order_id", orderID)
	}
	return err
}
