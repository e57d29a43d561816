package users

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/sillar-go/sillar/examples/shop/internal/platform"
)

// view is a user as clients see it.
type view struct {
	ID        string    `json:"id"`
	Username  string    `json:"username"`
	Email     string    `json:"email"`
	Roles     []string  `json:"roles"`
	Version   int64     `json:"version"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

func show(u User) view {
	return view{u.ID, u.Username, u.Email, u.Roles, u.Version, u.CreatedAt, u.UpdatedAt}
}

type createInput struct {
	Body struct {
		Username string `json:"username" minLength:"3" maxLength:"40" example:"ana"`
		Email    string `json:"email" maxLength:"254" example:"ana@example.com"`
		Password string `json:"password" minLength:"8" maxLength:"72"`
	}
}

type updateInput struct {
	ID   string `path:"id" maxLength:"64"`
	Body struct {
		Username *string `json:"username,omitempty" minLength:"3" maxLength:"40"`
		Email    *string `json:"email,omitempty" maxLength:"254"`
	}
}

type idInput struct {
	ID string `path:"id" maxLength:"64"`
}

// api hangs the HTTP operations into the frame.
func api(s *platform.Service, c *Commands, q *Queries) {
	huma.Register(s.API, platform.Created(platform.Op("POST", "/api/v1/users", "Sign up", platform.Public)),
		func(ctx context.Context, in *createInput) (*platform.Body[view], error) {
			u, err := c.Create.Handle(ctx, CreateUser{Username: in.Body.Username, Email: in.Body.Email,
				Password: in.Body.Password})
			return reply(u, err)
		})
	huma.Register(s.API, platform.Op("GET", "/api/v1/users", "List users", platform.Only(RoleAdmin, platform.RoleService)),
		func(ctx context.Context, in *platform.Paging) (*platform.Body[platform.List[view]], error) {
			return list(ctx, q, in)
		})
	huma.Register(s.API, platform.Op("GET", "/api/v1/users/{id}", "Get a user", platform.SignedIn),
		func(ctx context.Context, in *idInput) (*platform.Body[view], error) {
			if err := own(ctx, in.ID); err != nil {
				return nil, err
			}
			u, err := q.Get.Handle(ctx, GetUser{ID: in.ID})
			return reply(u, err)
		})
	huma.Register(s.API, platform.Op("PUT", "/api/v1/users/{id}", "Change a user", platform.SignedIn),
		func(ctx context.Context, in *updateInput) (*platform.Body[view], error) {
			if err := own(ctx, in.ID); err != nil {
				return nil, err
			}
			u, err := c.Update.Handle(ctx, UpdateUser{ID: in.ID, Username: in.Body.Username, Email: in.Body.Email})
			return reply(u, err)
		})
	huma.Register(s.API, platform.Op("DELETE", "/api/v1/users/{id}", "Remove a user", platform.SignedIn),
		func(ctx context.Context, in *idInput) (*struct{}, error) {
			if err := own(ctx, in.ID); err != nil {
				return nil, err
			}
			_, err := c.Delete.Handle(ctx, DeleteUser{ID: in.ID})
			return nil, err
		})
	huma.Register(s.API, platform.Op("GET", "/users/me", "Who am I", platform.SignedIn),
		func(ctx context.Context, _ *struct{}) (*platform.Body[view], error) {
			u, err := q.Get.Handle(ctx, GetUser{ID: platform.Caller(ctx).ID})
			return reply(u, err)
		})
	huma.Register(s.API, platform.Op("GET", "/admin/users", "List users, for administrators", platform.Only(RoleAdmin)),
		func(ctx context.Context, in *platform.Paging) (*platform.Body[platform.List[view]], error) {
			return list(ctx, q, in)
		})
}

func reply(u User, err error) (*platform.Body[view], error) {
	if err != nil {
		return nil, err
	}
	return platform.Reply(show(u)), nil
}

func list(ctx context.Context, q *Queries, in *platform.Paging) (*platform.Body[platform.List[view]], error) {
	page, err := q.List.Handle(ctx, ListUsers{Limit: in.Limit, After: in.After})
	if err != nil {
		return nil, err
	}
	return platform.Reply(platform.PageOf(page.Page, show)), nil
}

// own refuses what belongs to another user. The answer does not say whether that user exists.
func own(ctx context.Context, id string) error {
	if platform.MaySee(ctx, id) {
		return nil
	}
	return platform.Fail(http.StatusForbidden, "forbidden", "only the user or an administrator may do this")
}
