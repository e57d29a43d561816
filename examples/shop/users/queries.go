package users

import (
	"context"
	"strings"

	"github.com/sillar-go/sillar/messaging/cqrs"
	"github.com/sillar-go/sillar/repository"
)

// GetUser asks for one user.
type GetUser struct{ ID string }

// FindByLogin asks for the user of a username or e-mail address.
type FindByLogin struct{ Login string }

// ListUsers asks for a page.
type ListUsers struct {
	Limit, Offset int
	After         string
}

// Users is a page, and how many there are in all.
type Users struct {
	repository.Page[User]
	Total int64
}

// Queries read users, and change nothing.
type Queries struct {
	Get         cqrs.Handler[GetUser, User]
	FindByLogin cqrs.Handler[FindByLogin, User]
	List        cqrs.Handler[ListUsers, Users]
}

// NewQueries returns the query handlers.
func NewQueries(users Repository, cfg cqrs.Config) *Queries {
	get := func(ctx context.Context, q GetUser) (User, error) { return users.Get(ctx, q.ID) }
	byLogin := func(ctx context.Context, q FindByLogin) (User, error) {
		page, err := users.Find(ctx,
			repository.Query[User]{Where: username.Eq(q.Login).Or(email.Eq(strings.ToLower(q.Login))), Limit: 1})
		if err != nil {
			return User{}, err
		}
		if len(page.Items) == 0 {
			return User{}, repository.ErrNotFound
		}
		return page.Items[0], nil
	}
	list := func(ctx context.Context, q ListUsers) (out Users, err error) {
		out.Page, err = users.Find(ctx, repository.Query[User]{Limit: q.Limit, Offset: q.Offset, After: q.After})
		if err == nil {
			out.Total, err = users.Count(ctx, repository.Filter[User]{})
		}
		return out, err
	}
	return &Queries{
		Get:         cqrs.Decorate(cqrs.HandlerFunc[GetUser, User](get), "get_user", cfg),
		FindByLogin: cqrs.Decorate(cqrs.HandlerFunc[FindByLogin, User](byLogin), "find_user_by_login", cfg),
		List:        cqrs.Decorate(cqrs.HandlerFunc[ListUsers, Users](list), "list_users", cfg),
	}
}
