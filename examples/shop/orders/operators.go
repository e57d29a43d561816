package orders

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/sillar-go/sillar/examples/shop/internal/platform"
	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/sagasql"
)

// sagaView is a saga as operators, and the owner of its order, see it.
type sagaView struct {
	ID         string       `json:"id"`
	Name       string       `json:"name"`
	Status     saga.Status  `json:"status"`
	Steps      []stepView   `json:"steps"`
	FailedStep string       `json:"failed_step,omitempty"`
	Cause      string       `json:"cause,omitempty"`
	Audit      []saga.Audit `json:"audit,omitempty"`
	UpdatedAt  time.Time    `json:"updated_at"`
	History    []changeView `json:"history,omitempty"`
}

// changeView is a state that a saga has been in.
type changeView struct {
	At     time.Time   `json:"at"`
	Status saga.Status `json:"status"`
	Step   string      `json:"step"`
	Owner  string      `json:"owner,omitempty"`
}

type stepView struct {
	Name      string          `json:"name"`
	Status    saga.StepStatus `json:"status"`
	InDoubt   bool            `json:"in_doubt,omitempty"`
	Attempts  int             `json:"attempts,omitempty"`
	Error     string          `json:"error,omitempty"`
	UndoError string          `json:"undo_error,omitempty"`
}

func showSaga(r saga.Record) sagaView {
	v := sagaView{ID: r.ID, Name: r.Name, Status: r.Status, FailedStep: r.FailedStep, Cause: r.Cause, Audit: r.Audit,
		UpdatedAt: r.UpdatedAt}
	for _, st := range r.Steps {
		v.Steps = append(v.Steps, stepView{st.Name, st.Status, st.InDoubt, st.Attempts, st.Error, st.UndoError})
	}
	return v
}

type sagasInput struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"200" default:"50"`
	After  string `query:"after" maxLength:"230"`
	User   string `query:"user" maxLength:"200"`
	Status string `query:"status" enum:"RUNNING,COMPENSATING,COMPLETED,COMPENSATED,STUCK,"`
}

type skipInput struct {
	ID   string `path:"id" maxLength:"200"`
	Body struct {
		Step   string `json:"step" minLength:"1" maxLength:"100"`
		Reason string `json:"reason" minLength:"1" maxLength:"500"`
	}
}

// after makes f go on after a page whose next was this one: the start of the last saga, a dot and its id.
func after(f saga.Filter, next string) (saga.Filter, error) {
	if next == "" {
		return f, nil
	}
	at, id, _ := strings.Cut(next, ".")
	micros, err := strconv.ParseInt(at, 10, 64)
	if err != nil {
		return f, huma.Error422UnprocessableEntity("after: want the next of a page")
	}
	f.Since, f.After = time.UnixMicro(micros).UTC(), id
	return f, nil
}

// operators registers the operations on sagas.
func operators(s *platform.Service, svc *service, history func(context.Context, string) ([]sagasql.Change, error)) {
	admin := platform.Only("admin")
	huma.Register(s.API, platform.Op("GET", "/api/v1/totals", "Count and sum the orders by status", admin),
		func(ctx context.Context, _ *struct{}) (*platform.Body[platform.List[platform.Total]], error) {
			list, err := platform.Totals(ctx, svc.db, "orders", "total_cents")
			return platform.Reply(platform.List[platform.Total]{Items: list}), err
		})
	listSagas(s, admin, svc)
	huma.Register(s.API, platform.Op("GET", "/api/v1/orders/{id}/saga", "Get the saga that places an order",
		platform.SignedIn),
		func(ctx context.Context, in *idInput) (*platform.Body[sagaView], error) {
			if _, err := svc.visible(ctx, in.ID); err != nil {
				return nil, err
			}
			return svc.saga(ctx, in.ID)
		})
	huma.Register(s.API, platform.Op("GET", "/api/v1/sagas/{id}", "Get a saga, with the states that it has been in",
		admin),
		func(ctx context.Context, in *idInput) (*platform.Body[sagaView], error) {
			v, err := svc.saga(ctx, in.ID)
			if err != nil {
				return nil, err
			}
			list, err := history(ctx, in.ID)
			if err != nil {
				return nil, err
			}
			for _, c := range list {
				v.Body.History = append(v.Body.History, changeView{c.At, c.Status, c.Steps[min(c.Cursor, len(c.Steps)-1)].Name,
					c.Owner})
			}
			return v, nil
		})
	huma.Register(s.API, platform.Op("POST", "/api/v1/sagas/{id}/retry", "Retry a stuck saga", admin),
		func(ctx context.Context, in *idInput) (*platform.Body[sagaView], error) {
			if err := svc.sagas.Retry(ctx, in.ID, platform.Caller(ctx).ID); err != nil {
				return nil, sagaProblem(err)
			}
			return svc.saga(ctx, in.ID)
		})
	huma.Register(s.API, platform.Op("POST", "/api/v1/sagas/{id}/skip", "Mark a step of a stuck saga as done", admin),
		func(ctx context.Context, in *skipInput) (*platform.Body[sagaView], error) {
			if err := svc.sagas.Skip(ctx, in.ID, in.Body.Step, platform.Caller(ctx).ID, in.Body.Reason); err != nil {
				return nil, sagaProblem(err)
			}
			return svc.saga(ctx, in.ID)
		})
}

// listSagas adds the list of sagas.
func listSagas(s *platform.Service, admin platform.Access, svc *service) {
	huma.Register(s.API, platform.Op("GET", "/api/v1/sagas", "List sagas", admin),
		func(ctx context.Context, in *sagasInput) (*platform.Body[platform.List[sagaView]], error) {
			f, err := after(saga.Filter{Limit: in.Limit}, in.After)
			if err != nil {
				return nil, err
			}
			if in.User != "" {
				f.Attribute, f.Value = "user", in.User
			}
			if in.Status != "" {
				f.Statuses = []saga.Status{saga.Status(in.Status)}
			}
			records, err := svc.sagas.List(ctx, f)
			if err != nil {
				return nil, err
			}
			out := platform.List[sagaView]{Items: []sagaView{}}
			for _, r := range records {
				out.Items = append(out.Items, showSaga(r))
			}
			if len(records) == in.Limit {
				last := records[len(records)-1]
				out.Next = strconv.FormatInt(last.CreatedAt.UnixMicro(), 10) + "." + last.ID
			}
			return platform.Reply(out), nil
		})
}

func (s *service) saga(ctx context.Context, id string) (*platform.Body[sagaView], error) {
	r, err := s.sagas.Get(ctx, id)
	if err != nil {
		return nil, sagaProblem(err)
	}
	return platform.Reply(showSaga(r)), nil
}

func sagaProblem(err error) error {
	switch {
	case errors.Is(err, saga.ErrNotFound):
		return repository.ErrNotFound
	case errors.Is(err, saga.ErrNotStuck), errors.Is(err, saga.ErrBusy):
		return platform.Fail(http.StatusConflict, "not-stuck", "the saga is not stuck, or was changed meanwhile: look again")
	}
	if errors.Is(err, saga.ErrStep) {
		return platform.Fail(http.StatusConflict, "not-stuck-there", "the saga is not stuck at that step: look where it is")
	}
	return err
}
