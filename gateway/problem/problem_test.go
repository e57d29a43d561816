package problem_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sillar-go/sillar/gateway/problem"
)

var errNotFound = errors.New("store: not found")

type untried time.Duration

func (u untried) Error() string                       { return "open" }
func (u untried) NotAttempted() (time.Duration, bool) { return time.Duration(u), true }

type stale struct{}

func (stale) Error() string  { return "conflict on ana@example.com" }
func (stale) Conflict() bool { return true }

var mappedErrors = []struct {
	err        error
	status     int
	slug       string
	retryAfter string
}{
	{fmt.Errorf("get 7: %w", errNotFound), 404, "not-found", ""},
	{context.DeadlineExceeded, 503, "slow", "1"},
	{context.Canceled, 503, "unavailable", "1"},
	{fmt.Errorf("call: %w", untried(1500*time.Millisecond)), 503, "unavailable", "2"},
	{untried(0), 503, "unavailable", "1"},
	{stale{}, 409, "conflict", ""},
	{fmt.Errorf("x: %w", problem.New(418, "teapot", "short and stout")), 418, "teapot", ""},
	{errors.New("password=secret"), 500, "internal", ""},
}

func TestMapperMapsErrorsToProblems(t *testing.T) {
	var logged bytes.Buffer
	m := problem.NewMapper(
		problem.Rule{Err: errNotFound, Status: 404, Slug: "not-found", Detail: "there is no such thing"},
		problem.Rule{Err: context.DeadlineExceeded, Status: 503, Slug: "slow", Detail: "try again"},
	).WithLogger(slog.New(slog.NewTextHandler(&logged, nil)))
	for _, c := range mappedErrors {
		w := httptest.NewRecorder()
		m.Write(t.Context(), w, c.err)
		var p problem.Problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
			t.Fatal(err)
		}
		if w.Code != c.status || !strings.HasSuffix(p.Type, "/"+c.slug) || w.Header().Get("Retry-After") != c.retryAfter ||
			w.Header().Get("Content-Type") != problem.ContentType {
			t.Errorf("%v: %d %s %v", c.err, w.Code, p.Type, w.Header())
		}
		if strings.Contains(w.Body.String(), "secret") || strings.Contains(w.Body.String(), "ana@") {
			t.Errorf("%v: the client reads %s", c.err, w.Body)
		}
	}
	if n := strings.Count(logged.String(), "level=ERROR"); n != 1 || !strings.Contains(logged.String(),
		"password=secret") {
		t.Errorf("logged:\n%s", logged.String())
	}
}

var refusedBodies = []struct {
	contentType, body string
	status            int // 0: decoded
	field             string
}{
	{"application/json", `{"name":"x","items":[{"quantity":1}]}`, 0, ""},
	{"application/merge-patch+json; charset=utf-8", `{}` + "\n", 0, ""},
	{"", `{}`, 415, ""},
	{"text/plain", `{}`, 415, ""},
	{"application/json", ``, 400, ""},
	{"application/json", `{`, 400, ""},
	{"application/json", `{} {}`, 400, ""},
	{"application/json", `{"items":[{"quantity":"many"}]}`, 422, "items.quantity"},
	{"application/json", `{"nam":"x"}`, 422, "nam"},
	{"application/json", `{"name":"` + strings.Repeat("x", 200) + `"}`, 413, ""},
	{"application/json", `{}` + strings.Repeat(" ", 200), 413, ""},
}

func TestDecodeRefusesByFieldAndSize(t *testing.T) {
	type item struct {
		Quantity int `json:"quantity"`
	}
	type order struct {
		Name  string `json:"name"`
		Items []item `json:"items"`
	}
	for _, c := range refusedBodies {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(c.body))
		r.Header.Set("Content-Type", c.contentType)
		var o order
		err := problem.Decode(httptest.NewRecorder(), r, &o, 100)
		var p *problem.Problem
		switch {
		case c.status == 0:
			if err != nil {
				t.Errorf("%s: %v", c.body, err)
			}
		case !errors.As(err, &p) || p.Status != c.status:
			t.Errorf("%.40s as %q: %v, want %d", c.body, c.contentType, err, c.status)
		case c.field != "" && (len(p.Errors) != 1 || p.Errors[0].Field != c.field):
			t.Errorf("%s: fields %+v, want %s", c.body, p.Errors, c.field)
		}
	}
}

func Example() {
	problems := problem.NewMapper(problem.Rule{Err: errNotFound, Status: 404, Slug: "not-found",
		Detail: "there is no such product"})
	handler := func(w http.ResponseWriter, r *http.Request) {
		problems.Write(r.Context(), w, fmt.Errorf("get %s: %w", r.URL.Path, errNotFound))
	}
	w := httptest.NewRecorder()
	handler(w, httptest.NewRequest(http.MethodGet, "/products/7", nil))
	fmt.Println(w.Code, w.Body)
	// Output: 404 {"type":"https://sillar.dev/problems/not-found","title":"Not Found","status":404,"detail":"there is no such product"}
}
