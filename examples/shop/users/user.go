// Package users is the service that knows who buys: CQRS over a store of users, tokens, and the gRPC service that the
// other services ask.
//
// The file user.go holds the domain; commands.go and queries.go what can be done; events.go the events; api.go,
// login.go and grpc.go how it is reached; store.go where it is kept.
package users

import (
	"context"
	"net/mail"
	"regexp"
	"strings"

	"github.com/sillar-go/sillar/examples/shop/internal/platform"
	"github.com/sillar-go/sillar/repository"
)

// Roles of users.
const (
	RoleCustomer = "customer"
	RoleAdmin    = "admin"
)

// User is an account.
type User struct {
	repository.Meta
	Username     string
	Email        string
	PasswordHash string
	Roles        []string
}

var (
	username = repository.Text(func(u *User) *string { return &u.Username })
	email    = repository.Text(func(u *User) *string { return &u.Email })
)

// Repository is the port of the store of users.
type Repository = repository.Repository[User]

// Events is the port that publishes events of users. It is called inside the write that the event describes.
type Events interface {
	UserCreated(ctx context.Context, u *User) error
	UserUpdated(ctx context.Context, u *User) error
	UserDeleted(ctx context.Context, u *User) error
}

var validUsername = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{2,39}$`)

func checkUsername(s string) *platform.FieldError {
	if !validUsername.MatchString(s) {
		return &platform.FieldError{Field: "username", Detail: "want 3 to 40 letters, digits, dots, dashes or underscores"}
	}
	return nil
}

func checkEmail(s string) *platform.FieldError {
	a, err := mail.ParseAddress(s)
	if err != nil || a.Address != s || len(s) > 254 || !strings.Contains(s[strings.LastIndexByte(s, '@')+1:], ".") {
		return &platform.FieldError{Field: "email", Detail: "is no e-mail address"}
	}
	return nil
}

func checkPassword(s string) *platform.FieldError {
	if len(s) < 8 || len(s) > 72 {
		return &platform.FieldError{Field: "password", Detail: "want 8 to 72 bytes"}
	}
	return nil
}

func invalid(checks ...*platform.FieldError) error {
	p := platform.Fail(422, "validation", "the user is not valid")
	for _, c := range checks {
		if c != nil {
			p.Errors = append(p.Errors, *c)
		}
	}
	if len(p.Errors) == 0 {
		return nil
	}
	return p
}
