package breakerhttp_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/sillar-go/sillar/breaker/breakerhttp"
	"github.com/sillar-go/sillar/internal/problem"
)

// User is the JSON form of a user.
type User struct {
	ID       string `json:"id"`
	Username string `json:"username"`
	Email    string `json:"email"`
}

// UserServiceClient is a client of one service, written over the REST client.
type UserServiceClient struct{ api *breakerhttp.Client }

// NewUserServiceClient returns a client of the service at baseURL.
func NewUserServiceClient(baseURL string) (*UserServiceClient, error) {
	api, err := breakerhttp.NewClient(baseURL, breakerhttp.Config{})
	if err != nil {
		return nil, err
	}
	return &UserServiceClient{api}, nil
}

// User returns a user, nil when there is none of that id.
func (c *UserServiceClient) User(ctx context.Context, id string) (*User, error) {
	u, err := breakerhttp.Get[*User](ctx, c.api, breakerhttp.Path("api/v1/users", id))
	if errors.Is(err, breakerhttp.ErrNotFound) {
		return nil, nil
	}
	return u, err
}

// Create makes a user. With a key the service makes it once, however often it is asked.
func (c *UserServiceClient) Create(ctx context.Context, username, email, key string) (*User, error) {
	return breakerhttp.Post[*User](ctx, c.api, "api/v1/users", User{Username: username, Email: email},
		breakerhttp.IdempotencyKey(key))
}

// userService is a users service with one user to begin with.
func userService() *httptest.Server {
	users := map[string]User{"7": {"7", "ana", "ana@example.com"}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/users/{id}", func(w http.ResponseWriter, r *http.Request) {
		u, ok := users[r.PathValue("id")]
		if !ok {
			problem.Write(r.Context(), w, http.StatusNotFound, "user-not-found", "no such user")
			return
		}
		_ = json.NewEncoder(w).Encode(u)
	})
	mux.HandleFunc("POST /api/v1/users", func(w http.ResponseWriter, r *http.Request) {
		var u User
		if err := json.NewDecoder(r.Body).Decode(&u); err != nil || u.Email == "" {
			problem.New(http.StatusUnprocessableEntity, "validation", "the user is not valid").With("email",
				"required").Write(r.Context(), w)
			return
		}
		u.ID = fmt.Sprint(7 + len(users))
		users[u.ID] = u
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(u)
	})
	return httptest.NewServer(mux)
}

func Example_userServiceClient() {
	srv := userService()
	defer srv.Close()
	users, err := NewUserServiceClient(srv.URL)
	if err != nil {
		panic(err)
	}
	defer users.api.CloseIdleConnections()
	ctx := context.Background()

	u, err := users.User(ctx, "7")
	fmt.Println(u.Username, err)
	u, err = users.User(ctx, "9")
	fmt.Println(u, err)
	u, err = users.Create(ctx, "ben", "ben@example.com", "signup-1")
	fmt.Println(u.ID, u.Username, err)

	_, err = users.Create(ctx, "nobody", "", "signup-2")
	var answer *breakerhttp.ResponseError
	if errors.Is(err, breakerhttp.ErrInvalid) && errors.As(err, &answer) {
		fmt.Println(answer.Problem.Errors[0].Field, answer.Problem.Errors[0].Detail)
	}
	// Output:
	// ana <nil>
	// <nil> <nil>
	// 8 ben <nil>
	// email required
}

func TestUserServiceClientWithoutAService(t *testing.T) {
	srv := userService()
	users, err := NewUserServiceClient(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	srv.Close()
	if u, err := users.User(t.Context(), "7"); u != nil || !errors.Is(err, breakerhttp.ErrUnavailable) {
		t.Fatalf("%v, %v: a service that is gone is not a user that is not there", u, err)
	}
	if u, err := users.User(t.Context(), ".."); u != nil || !errors.Is(err, breakerhttp.ErrPath) {
		t.Fatalf("%v, %v", u, err)
	}
}
