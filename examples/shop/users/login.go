package users

import (
	"context"
	"errors"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/observability"
	"github.com/sillar-go/sillar/repository"
)

// login returns the subject of a username, or e-mail address, and a password. It takes as long for unknown users, and
// stores the password anew where the way of hashing has changed.
func login(q *Queries, users Repository,
	passwords *authn.Passwords) func(ctx context.Context, name, password string) (authn.Subject, error) {
	return func(ctx context.Context, name, password string) (authn.Subject, error) {
		u, err := q.FindByLogin.Handle(ctx, FindByLogin{Login: name})
		if err != nil && !errors.Is(err, repository.ErrNotFound) {
			return authn.Subject{}, err
		}
		// it takes most of a login
		upgraded, err := observability.Trace(ctx, "verify password", func(ctx context.Context) (string, error) {
			return passwords.Verify(ctx, u.PasswordHash, password) // the empty hash of an unknown user takes the same time
		})
		if err != nil {
			return authn.Subject{}, err
		}
		if upgraded != "" {
			_, err = users.Update(ctx, u.ID, func(_ context.Context, u *User) error { u.PasswordHash = upgraded; return nil })
		}
		return subject(u), err
	}
}

func subject(u User) authn.Subject {
	return authn.Subject{ID: u.ID, Roles: u.Roles, Claims: map[string]any{"username": u.Username}}
}

// refreshed looks the roles up again; for a user that was deleted it ends the session.
func refreshed(users Repository) func(context.Context, authn.Subject) (authn.Subject, error) {
	return func(ctx context.Context, s authn.Subject) (authn.Subject, error) {
		u, err := users.Get(ctx, s.ID)
		if errors.Is(err, repository.ErrNotFound) {
			return s, authn.ErrRefresh
		}
		return subject(u), err
	}
}
