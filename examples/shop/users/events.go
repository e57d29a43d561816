package users

import (
	"context"

	"github.com/sillar-go/sillar/messaging"
)

// UserEvent is the payload of users.created, users.updated and users.deleted.
type UserEvent struct {
	UserID   string `json:"user_id"`
	Username string `json:"username"`
	Email    string `json:"email"`
	// Version is the user's after the change, and one more than the last when the user was deleted: a service that keeps a
	// copy tells by it what is older.
	Version int64 `json:"version"`
}

// events publishes through an outbox: each event is stored in the transaction of its change.
type events struct{ outbox messaging.Publisher }

func (e events) publish(ctx context.Context, topic string, u *User, version int64) error {
	return e.outbox.Publish(ctx, topic, UserEvent{u.ID, u.Username, u.Email, version}, messaging.WithKey(u.ID))
}

func (e events) UserCreated(ctx context.Context, u *User) error {
	return e.publish(ctx, "users.created", u, u.Version)
}
func (e events) UserUpdated(ctx context.Context, u *User) error {
	return e.publish(ctx, "users.updated", u, u.Version+1) // the write that counts it is to come
}
func (e events) UserDeleted(ctx context.Context, u *User) error {
	return e.publish(ctx, "users.deleted", u, u.Version+1)
}
