package platform

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/breaker/breakerhttp"
	"github.com/sillar-go/sillar/gateway/problem"
	"github.com/sillar-go/sillar/messaging/cqrs"
	"github.com/sillar-go/sillar/observability"
	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/sqldb"
)

// Problem is the body of every error response (RFC 9457).
type Problem = problem.Problem

// FieldError says what is wrong with one field.
type FieldError = problem.FieldError

// Fail returns a problem. The client sees detail, so it must hold nothing confidential.
func Fail(status int, slug, detail string, fields ...FieldError) *Problem {
	p := problem.New(status, slug, detail)
	p.Errors = fields
	return p
}

// Invalid is a problem with one field.
func Invalid(field, detail string) *Problem {
	return Fail(http.StatusUnprocessableEntity, "validation", "the request is not valid",
		FieldError{Field: field, Detail: detail})
}

// problems are the answers to errors of handlers.
var problems = problem.NewMapper(
	problem.Rule{Err: repository.ErrNotFound, Status: http.StatusNotFound, Slug: "not-found",
		Detail: "there is nothing of that id"},
	problem.Rule{Err: breakerhttp.ErrNotFound, Status: http.StatusNotFound, Slug: "not-found",
		Detail: "there is nothing of that id"},
	problem.Rule{Err: repository.ErrConflict, Status: http.StatusConflict, Slug: "conflict",
		Detail: "it was changed by another meanwhile: read it again"},
	problem.Rule{Err: repository.ErrCursor, Status: http.StatusBadRequest, Slug: "query",
		Detail: "the query or its cursor is not valid"},
	problem.Rule{Err: repository.ErrQuery, Status: http.StatusBadRequest, Slug: "query",
		Detail: "the query or its cursor is not valid"},
	problem.Rule{Err: repository.ErrValue, Status: http.StatusUnprocessableEntity, Slug: "validation",
		Detail: "the request holds text that cannot be stored"},
	problem.Rule{Err: cqrs.ErrInvalid, Status: http.StatusUnprocessableEntity, Slug: "validation",
		Detail: "the request is not valid"},
	problem.Rule{Err: sqldb.ErrBusy, Status: http.StatusServiceUnavailable, Slug: "busy",
		Detail: "the service is busy: try again"},
	problem.Rule{Err: breakerhttp.ErrUnavailable, Status: http.StatusServiceUnavailable, Slug: "unavailable",
		Detail: "a service that is needed does not answer: try again"},
	problem.Rule{Err: authn.ErrUnavailable, Status: http.StatusServiceUnavailable, Slug: "unavailable",
		Detail: "a service that is needed does not answer: try again"},
)

// describe maps an error of a handler to a problem. Unknown errors become a 500 without details.
func describe(err error) (p *Problem, known bool) {
	var own *Problem
	var unique *repository.UniqueError
	if !errors.As(err, &own) && errors.As(err, &unique) {
		p := Fail(http.StatusConflict, "taken", "another one has the same value already")
		for _, f := range unique.Fields {
			p.Errors = append(p.Errors, FieldError{Field: f, Detail: "is taken"})
		}
		return p, true
	}
	p, _, known = problems.Problem(err)
	return p, known
}

// complete adds the correlation id.
func complete(ctx context.Context, p *Problem) *Problem {
	out := *p
	out.CorrelationID = observability.CorrelationID(ctx)
	return &out
}

var slugs = map[int]string{400: "bad-request", 401: "unauthorized", 403: "forbidden", 404: "not-found", 405: "method",
	406: "not-acceptable",
	408: "timeout", 413: "too-large", 415: "media-type", 422: "validation", 429: "rate-limit"}

func init() {
	huma.NewError = func(status int, msg string, errs ...error) huma.StatusError {
		return newError(context.Background(), slog.Default(), status, msg, errs)
	}
	huma.NewErrorWithContext = func(ctx huma.Context, status int, msg string, errs ...error) huma.StatusError {
		c := context.Background()
		if ctx != nil { // huma asks once without, to learn the schema
			c = ctx.Context()
		}
		log := slog.Default()
		if s, ok := c.Value(serviceKey{}).(*Service); ok {
			log = s.Log
		}
		return newError(c, log, status, msg, errs)
	}
}

func newError(ctx context.Context, log *slog.Logger, status int, msg string, errs []error) *Problem {
	if status >= 500 {
		p, known := describe(errors.Join(errs...))
		if !known && len(errs) > 0 {
			log.ErrorContext(ctx, "a request failed", "error", errors.Join(errs...))
		}
		return complete(ctx, p)
	}
	slug := slugs[status]
	if slug == "" {
		slug = "bad-request"
	}
	p := Fail(status, slug, msg)
	for _, err := range errs {
		var d huma.ErrorDetailer
		if errors.As(err, &d) {
			p.Errors = append(p.Errors, FieldError{Field: strings.TrimPrefix(d.ErrorDetail().Location, "body."),
				Detail: d.ErrorDetail().Message})
		}
	}
	return complete(ctx, p)
}

func apiConfig(name, version string) huma.Config {
	cfg := huma.DefaultConfig("Shop: "+name, version)
	cfg.CreateHooks = nil // no $schema in every answer
	cfg.DocsPath = ""     // ours needs nothing of the internet
	cfg.Transformers = append(cfg.Transformers, func(c huma.Context, _ string, v any) (any, error) {
		if p, ok := v.(*Problem); ok { // one that a handler returned as it is
			if p.Status == http.StatusServiceUnavailable {
				c.SetHeader("Retry-After", "1")
			}
			return complete(c.Context(), p), nil
		}
		return v, nil
	})
	cfg.Components.SecuritySchemes = map[string]*huma.SecurityScheme{"bearer": {Type: "http", Scheme: "bearer",
		BearerFormat: "JWT"}}
	return cfg
}

type serviceKey struct{}

func newAPI(s *Service, api huma.API) huma.API {
	api.UseMiddleware(func(c huma.Context, next func(huma.Context)) {
		next(huma.WithValue(c, serviceKey{}, s))
	}, plainText, s.authorize)
	return api
}

// plainText refuses addresses with what is no text: no id, and nothing that is searched for, is like that, and
// databases that are asked for it fail.
func plainText(c huma.Context, next func(huma.Context)) {
	r, w := humago.Unwrap(c)
	query, err := url.QueryUnescape(r.URL.RawQuery)
	if text := r.URL.Path + query; err != nil || !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
		complete(r.Context(), Fail(http.StatusBadRequest, "bad-request",
			"the address holds what is no text")).Write(r.Context(), w)
		return
	}
	next(c)
}

// Access states which callers an operation admits.
type Access []map[string][]string

// Access levels.
var (
	// Public operations need no token.
	Public Access
	// SignedIn operations need any user's token, or a service's.
	SignedIn = Access{{"bearer": {}}}
)

// Only operations need a token with one of the roles. RoleService is that of the shop's own services.
func Only(roles ...string) Access { return Access{{"bearer": roles}} }

// Op describes an operation.
func Op(method, path, summary string, access Access) huma.Operation {
	id := strings.ToLower(method + strings.NewReplacer("/", "-", "{", "", "}", "", ".", "").Replace(path))
	op := huma.Operation{OperationID: id, Method: method, Path: path, Summary: summary, Security: access,
		MaxBodyBytes: 1 << 20}
	if method == http.MethodDelete {
		op.DefaultStatus = http.StatusNoContent
	}
	return op
}

// Created is Op with status 201.
func Created(op huma.Operation) huma.Operation {
	op.DefaultStatus = http.StatusCreated
	return op
}

// authorize verifies the token where the operation asks for one.
func (s *Service) authorize(c huma.Context, next func(huma.Context)) {
	security := c.Operation().Security
	if len(security) == 0 {
		next(c)
		return
	}
	var requirements []authn.Requirement
	if roles := security[0]["bearer"]; len(roles) > 0 {
		requirements = append(requirements, authn.AnyRole(roles...))
	}
	r, w := humago.Unwrap(c)
	user, err := s.Guard.Check(r.Context(), r.Header.Values("Authorization"), requirements...)
	if err != nil {
		authn.WriteError(r.Context(), w, err)
		return
	}
	next(huma.WithContext(c, authn.WithUser(c.Context(), user)))
}

// Caller is the user of the request's token. Operations that are not Public have one.
func Caller(ctx context.Context) *authn.User {
	u, ok := authn.FromContext(ctx)
	if !ok {
		return &authn.User{}
	}
	return u
}

// MaySee reports whether the caller may see the data of a user: users see their own, administrators and services all.
func MaySee(ctx context.Context, userID string) bool {
	u := Caller(ctx)
	return u.ID == userID || u.HasAnyRole("admin", RoleService)
}

// Paging are the parameters of lists.
type Paging struct {
	Limit int    `query:"limit" minimum:"1" maximum:"200" default:"50" doc:"How many at most."`
	After string `query:"after" maxLength:"2000" doc:"The cursor next of the page before."`
}

// List is a page of a list.
type List[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next,omitempty" doc:"Where the next page begins; absent on the last one."`
}

// PageOf makes the list of a page of entities.
func PageOf[E, T any](p repository.Page[E], view func(E) T) List[T] {
	out := List[T]{Items: make([]T, 0, len(p.Items)), Next: p.Next}
	for _, e := range p.Items {
		out.Items = append(out.Items, view(e))
	}
	return out
}

// Body is an answer, or a request, that is nothing but a body.
type Body[T any] struct{ Body T }

// Reply makes a Body.
func Reply[T any](v T) *Body[T] { return &Body[T]{v} }

func notFound(w http.ResponseWriter, r *http.Request) {
	complete(r.Context(), Fail(http.StatusNotFound, "not-found", "there is nothing at this address")).Write(r.Context(), w)
}
