package breakerhttp_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sillar-go/sillar/breaker"
	"github.com/sillar-go/sillar/breaker/breakerhttp"
	"github.com/sillar-go/sillar/internal/problem"
)

type user struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

func client(t *testing.T, cfg breakerhttp.Config, h http.HandlerFunc) *breakerhttp.Client {
	t.Helper()
	tr, url := serve(t, cfg, h)
	return breakerhttp.Must(breakerhttp.NewClientOver(tr, url+"/base/"))
}

func TestClientDecodesAnswers(t *testing.T) {
	c := client(t, breakerhttp.Config{}, func(w http.ResponseWriter, r *http.Request) {
		var in user
		_ = json.NewDecoder(r.Body).Decode(&in)
		fmt.Fprintf(w, `{"id":%q,"name":%q}`, r.Method+" "+r.URL.EscapedPath()+"?"+r.URL.RawQuery,
			in.Name+r.Header.Get("Authorization")+r.Header.Get("Idempotency-Key")+r.Header.Get("X-A"))
	})
	ctx := t.Context()
	path := breakerhttp.Path("api/v1/users", "a/b c?")
	for want, call := range map[string]func() (user, error){
		"GET /base/api/v1/users/a%2Fb%20c%3F?q=1+2|Bearer t": func() (user, error) {
			return breakerhttp.Get[user](ctx, c, path, breakerhttp.Query("q", "1 2"), breakerhttp.Bearer("t"))
		},
		"POST /base/users?|anakey": func() (user, error) {
			return breakerhttp.Post[user](ctx, c, "/users", user{Name: "ana"}, breakerhttp.IdempotencyKey("key"))
		},
		"PUT /base/users?|ana": func() (user, error) { return breakerhttp.Put[user](ctx, c, "users", user{Name: "ana"}) },
		"PATCH /base/users?|anax": func() (user, error) {
			return breakerhttp.Patch[user](ctx, c, "users", user{Name: "ana"}, breakerhttp.Header("x-a", "x"))
		},
		"DELETE /base/users/1?|": func() (user, error) { return breakerhttp.Delete[user](ctx, c, "users/1") },
	} {
		u, err := call()
		if got := u.ID + "|" + u.Name; err != nil || got != want {
			t.Errorf("%q %v, want %q", got, err, want)
		}
	}
}

func TestClientErrors(t *testing.T) {
	all := []error{breakerhttp.ErrNotFound, breakerhttp.ErrConflict, breakerhttp.ErrUnauthorized, breakerhttp.ErrForbidden,
		breakerhttp.ErrInvalid, breakerhttp.ErrUnavailable}
	for status, want := range map[int]error{404: all[0], 409: all[1], 401: all[2], 403: all[3], 400: all[4], 422: all[4],
		500: all[5], 503: all[5], 429: all[5], 418: nil} {
		c := client(t, breakerhttp.Config{}, func(w http.ResponseWriter, r *http.Request) {
			problem.New(status, "x", "because").With("name", "too short").Write(r.Context(), w)
		})
		_, err := breakerhttp.Get[user](t.Context(), c, "users", breakerhttp.Query("token", "s3cret"))
		var re *breakerhttp.ResponseError
		if !errors.As(err, &re) || re.Status != status || re.Problem == nil || re.Problem.Errors[0].Field != "name" {
			t.Fatalf("%d: %v", status, err)
		}
		for _, s := range all {
			if errors.Is(err, s) != (s == want) {
				t.Errorf("%d is %v: %v", status, s, errors.Is(err, s))
			}
		}
		if strings.Contains(err.Error(), "s3cret") || !strings.Contains(err.Error(), "because") {
			t.Errorf("%d: %v", status, err)
		}
	}
}

func TestClientUnavailable(t *testing.T) {
	gone := httptest.NewServer(nil)
	gone.Close()
	c := breakerhttp.Must(breakerhttp.NewClient(gone.URL, breakerhttp.Config{Breaker: breaker.Config{Failures: 1}}))
	_, err := breakerhttp.Get[user](t.Context(), c, "users", breakerhttp.Query("token", "s3cret"))
	if !errors.Is(err, breakerhttp.ErrUnavailable) || strings.Contains(err.Error(), "s3cret") {
		t.Fatalf("no connection: %v", err)
	}
	_, err = breakerhttp.Get[user](t.Context(), c, "users")
	if !errors.Is(err, breakerhttp.ErrUnavailable) || !errors.Is(err, breaker.ErrOpen) {
		t.Fatalf("open: %v", err)
	}
	slow := client(t, breakerhttp.Config{Breaker: breaker.Config{Timeout: 50 * time.Millisecond}},
		func(_ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
		})
	if _, err = breakerhttp.Get[user](t.Context(), slow, "users"); !errors.Is(err, breakerhttp.ErrUnavailable) ||
		!errors.Is(err, breaker.ErrTimeout) {
		t.Fatalf("too slow: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = breakerhttp.Get[user](ctx, slow, "users"); errors.Is(err, breakerhttp.ErrUnavailable) ||
		!errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled: %v", err)
	}
}

func TestClientBodies(t *testing.T) {
	c := client(t, breakerhttp.Config{MaxBody: 8}, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/base/nothing":
			w.WriteHeader(http.StatusNoContent)
		case "/base/exact":
			_, _ = io.WriteString(w, `"123456"`)
		case "/base/large":
			_, _ = io.WriteString(w, `"1234567"`)
		case "/base/away":
			http.Redirect(w, r, "http://elsewhere.invalid/", http.StatusFound)
		default:
			_, _ = io.WriteString(w, `{"id`)
		}
	})
	if s, err := breakerhttp.Get[string](t.Context(), c, "exact"); s != "123456" || err != nil {
		t.Errorf("exact: %q %v", s, err)
	}
	if _, err := breakerhttp.Get[string](t.Context(), c, "large"); !errors.Is(err, breakerhttp.ErrTooLarge) {
		t.Errorf("large: %v", err)
	}
	if v, err := breakerhttp.Delete[*user](t.Context(), c, "nothing"); v != nil || err != nil {
		t.Errorf("nothing: %v %v", v, err)
	}
	if _, err := breakerhttp.Delete[struct{}](t.Context(), c, "half"); err != nil {
		t.Errorf("the answer is not decoded: %v", err)
	}
	if _, err := breakerhttp.Get[user](t.Context(), c, "half"); err == nil {
		t.Error("half a document: no error")
	}
	var re *breakerhttp.ResponseError
	if _, err := breakerhttp.Get[user](t.Context(), c, "away"); !errors.As(err, &re) || re.Status != http.StatusFound {
		t.Errorf("a redirect to elsewhere: %v", err)
	}
	for _, p := range []string{breakerhttp.Path("users", ""), breakerhttp.Path("users", ".."),
		breakerhttp.Path("users", "."),
		"../admin", "a/%2e%2e/b", "users?x=1", "users#x", `a\b`, "a%00", "%zz"} {
		if _, err := breakerhttp.Get[user](t.Context(), c, p); !errors.Is(err, breakerhttp.ErrPath) {
			t.Errorf("path %q: %v", p, err)
		}
	}
	for _, u := range []string{"", "users:8000", "ftp://x", "http://", "http://x/?q", "http://x\x00"} {
		if _, err := breakerhttp.NewClient(u, breakerhttp.Config{}); err == nil {
			t.Errorf("base URL %q: no error", u)
		}
	}
}

func ExampleClient() {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/v1/users/7" {
			problem.Write(r.Context(), w, http.StatusNotFound, "user-not-found", "no such user")
			return
		}
		_, _ = io.WriteString(w, `{"id":"7","name":"Ana"}`)
	}))
	defer srv.Close()
	users, err := breakerhttp.NewClient(srv.URL, breakerhttp.Config{})
	if err != nil {
		panic(err)
	}
	defer users.CloseIdleConnections()

	u, err := breakerhttp.Get[user](context.Background(), users, breakerhttp.Path("api/v1/users", "7"))
	fmt.Println(u.Name, err)
	_, err = breakerhttp.Get[user](context.Background(), users, breakerhttp.Path("api/v1/users", "8"))
	fmt.Println(errors.Is(err, breakerhttp.ErrNotFound), errors.Is(err, breakerhttp.ErrUnavailable))
	// Output:
	// Ana <nil>
	// true false
}
