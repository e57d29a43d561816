package users

import (
	"context"
	"strings"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/messaging/cqrs"
)

// CreateUser makes a user.
type CreateUser struct {
	Username, Email, Password string
	// Roles are customer alone when empty.
	Roles []string
}

// Validate says what is wrong with the command.
func (c CreateUser) Validate() error {
	return invalid(checkUsername(c.Username), checkEmail(c.Email), checkPassword(c.Password))
}

// UpdateUser changes what is not nil.
type UpdateUser struct {
	ID              string
	Username, Email *string
}

// Validate says what is wrong with the command.
func (c UpdateUser) Validate() error {
	u, e := "abc", "a@b.c"
	if c.Username != nil {
		u = *c.Username
	}
	if c.Email != nil {
		e = *c.Email
	}
	return invalid(checkUsername(u), checkEmail(e))
}

// DeleteUser removes a user.
type DeleteUser struct{ ID string }

// Commands change users. Each is validated, logged, measured and traced.
type Commands struct {
	Create cqrs.Handler[CreateUser, User]
	Update cqrs.Handler[UpdateUser, User]
	Delete cqrs.Handler[DeleteUser, struct{}]
}

// NewCommands returns the command handlers.
func NewCommands(users Repository, events Events, passwords *authn.Passwords, cfg cqrs.Config) *Commands {
	create := func(ctx context.Context, c CreateUser) (User, error) {
		hash, err := passwords.Hash(ctx, c.Password)
		if err != nil {
			return User{}, err
		}
		roles := c.Roles
		if len(roles) == 0 {
			roles = []string{RoleCustomer}
		}
		return users.Create(ctx, User{Username: c.Username, Email: strings.ToLower(c.Email), PasswordHash: hash,
			Roles: roles}, events.UserCreated)
	}
	update := func(ctx context.Context, c UpdateUser) (User, error) {
		return users.Update(ctx, c.ID, func(ctx context.Context, u *User) error {
			if c.Username != nil {
				u.Username = *c.Username
			}
			if c.Email != nil {
				u.Email = strings.ToLower(*c.Email)
			}
			return events.UserUpdated(ctx, u)
		})
	}
	remove := func(ctx context.Context, c DeleteUser) (struct{}, error) {
		return struct{}{}, users.Delete(ctx, c.ID, events.UserDeleted)
	}
	return &Commands{
		Create: cqrs.Decorate(cqrs.Chain(cqrs.HandlerFunc[CreateUser, User](create),
			cqrs.Validated[CreateUser, User](CreateUser.Validate)), "create_user", cfg),
		Update: cqrs.Decorate(cqrs.Chain(cqrs.HandlerFunc[UpdateUser, User](update),
			cqrs.Validated[UpdateUser, User](UpdateUser.Validate)), "update_user", cfg),
		Delete: cqrs.Decorate(cqrs.HandlerFunc[DeleteUser, struct{}](remove), "delete_user", cfg),
	}
}
