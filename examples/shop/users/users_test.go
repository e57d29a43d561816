package users_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/sillar-go/sillar/authn/authngrpc"
	"github.com/sillar-go/sillar/examples/shop/internal/platform"
	"github.com/sillar-go/sillar/examples/shop/users"
	"github.com/sillar-go/sillar/examples/shop/users/userpb"
	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/memory"
)

// start runs a users service and a consumer of what it tells.
func start(t *testing.T, dsn string) (s *platform.Service, reported <-chan string) {
	t.Helper()
	broker := memory.Must(memory.New(memory.Config{Source: "test"}))
	s, err := users.New(t.Context(), platform.Config{Name: "users", Version: "test", Addr: "127.0.0.1:0",
		GRPCAddr: "127.0.0.1:0", DB: dsn,
		Broker: broker, LogWriter: io.Discard, Tokens: platform.Tokens{Secret: bytes.Repeat([]byte("s"), 32)},
		Users: []platform.SeedUser{{Username: "admin", Email: "admin@example.com", Password: "correct horse",
			Roles: []string{"admin"}}}})
	if err != nil {
		t.Fatal(err)
	}
	topics := make(chan string, 100)
	r, err := s.Router()
	if err != nil {
		t.Fatal(err)
	}
	versions := map[string]int64{}
	messaging.Handle(r.Group("test", messaging.GroupConfig{}), "users.*",
		func(_ context.Context, m messaging.Message[users.UserEvent]) error {
			if m.Data.Version != versions[m.Data.UserID]+1 {
				t.Errorf("%s tells version %d after %d", m.Type, m.Data.Version, versions[m.Data.UserID])
			}
			versions[m.Data.UserID] = m.Data.Version
			topics <- m.Type
			return nil
		})
	run(t, s, broker)
	return s, topics
}

// run runs a service until the test ends.
func run(t *testing.T, s *platform.Service, broker *memory.Broker) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		_ = broker.Close()
	})
}

func login(t *testing.T, s *platform.Service, name, password string) *http.Client {
	t.Helper()
	cfg := oauth2.Config{Endpoint: oauth2.Endpoint{TokenURL: s.URL() + "/token"}}
	token, err := cfg.PasswordCredentialsToken(t.Context(), name, password)
	if err != nil {
		t.Fatalf("login as %s: %v", name, err)
	}
	return cfg.Client(t.Context(), token)
}

func call(t *testing.T, c *http.Client, method, url, body string) (int, map[string]any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Correlation-ID", "test-1")
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	out := map[string]any{}
	if res.StatusCode != http.StatusNoContent {
		if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
			t.Fatalf("%s %s: status %d: %v", method, url, res.StatusCode, err)
		}
	}
	if res.StatusCode >= 400 && (res.Header.Get("Content-Type") != "application/problem+json" ||
		out["correlation_id"] != "test-1") {
		t.Errorf("%s %s: %d as %s: %v", method, url, res.StatusCode, res.Header.Get("Content-Type"), out)
	}
	return res.StatusCode, out
}

func next(t *testing.T, reported <-chan string) string {
	t.Helper()
	select {
	case topic := <-reported:
		return topic
	case <-time.After(30 * time.Second):
		t.Fatal("no event was published")
		return ""
	}
}

func TestUsersAPIAndEvents(t *testing.T) {
	for name, dsn := range map[string]func(testing.TB) string{
		"sqlite":     func(t testing.TB) string { return "sqlite:" + filepath.Join(t.TempDir(), "users.db") },
		"postgresql": testenv.Postgres,
		"mongodb":    testenv.Mongo,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, reported := start(t, dsn(t))
			checkAPI(t, s, reported)
		})
	}
}

// checkAPI makes each call, as each caller, and reads the events.
func checkAPI(t *testing.T, s *platform.Service, reported <-chan string) {
	t.Helper()
	api := s.URL() + "/api/v1/users"
	if got := next(t, reported); got != "users.created" {
		t.Errorf("got the event %s of the first user", got)
	}
	code, ana := call(t, http.DefaultClient, "POST", api,
		`{"username":"ana","email":"Ana@Example.com","password":"long enough"}`)
	if code != 201 || ana["email"] != "ana@example.com" || ana["password"] != nil || ana["version"] != 1.0 {
		t.Fatalf("sign up: %d %v", code, ana)
	}
	if got := next(t, reported); got != "users.created" {
		t.Errorf("got the event %s", got)
	}
	id := ana["id"].(string)
	asAna, asAdmin := login(t, s, "ana", "long enough"), login(t, s, "admin@example.com", "correct horse")

	for _, c := range []struct {
		what         string
		as           *http.Client
		method, path string
		body         string
		code         int
		field        string
	}{
		{"who am I", asAna, "GET", "/users/me", "", 200, ""},
		{"without a token", http.DefaultClient, "GET", "/users/me", "", 401, ""},
		{"own profile", asAna, "GET", "/api/v1/users/" + id, "", 200, ""},
		{"another's profile", asAna, "GET", "/api/v1/users/other", "", 403, ""},
		{"a user that is not there", asAdmin, "GET", "/api/v1/users/other", "", 404, ""},
		{"the list as customer", asAna, "GET", "/api/v1/users", "", 403, ""},
		{"the list as admin", asAdmin, "GET", "/admin/users?limit=1", "", 200, ""},
		{"a limit too high", asAdmin, "GET", "/admin/users?limit=1000", "", 422, "query.limit"},
		{"an invalid cursor", asAdmin, "GET", "/admin/users?after=x", "", 400, ""},
		{"a taken name", http.DefaultClient, "POST", "/api/v1/users",
			`{"username":"ana","email":"b@example.com","password":"long enough"}`, 409, "username"},
		{"a bad address", http.DefaultClient, "POST", "/api/v1/users",
			`{"username":"bob","email":"nobody","password":"long enough"}`, 422, "email"},
		{"a password of 73 bytes", http.DefaultClient, "POST", "/api/v1/users",
			`{"username":"bob","email":"b@example.com","password":"` + strings.Repeat("é", 36) + `x"}`, 422, "password"},
		{"a short password", http.DefaultClient, "POST", "/api/v1/users",
			`{"username":"bob","email":"b@example.com","password":"short"}`, 422, "password"},
		{"a field too many", http.DefaultClient, "POST", "/api/v1/users",
			`{"username":"bob","email":"b@example.com","password":"long enough","roles":["admin"]}`, 422, "roles"},
		{"no JSON", http.DefaultClient, "POST", "/api/v1/users", `{`, 400, ""},
		{"no such place", http.DefaultClient, "GET", "/nowhere", "", 404, ""},
		{"a change", asAna, "PUT", "/api/v1/users/" + id, `{"username":"ana-maria"}`, 200, ""},
	} {
		code, body := call(t, c.as, c.method, s.URL()+c.path, c.body)
		if code != c.code {
			t.Errorf("%s: %d %v, want %d", c.what, code, body, c.code)
		}
		if c.field != "" && !strings.Contains(string(must(json.Marshal(body["errors"]))), `"field":"`+c.field+`"`) {
			t.Errorf("%s: field %s is not named: %v", c.what, c.field, body["errors"])
		}
	}
	if got := next(t, reported); got != "users.updated" {
		t.Errorf("got the event %s", got)
	}
	if code, _ := call(t, asAna, "DELETE", s.URL()+"/api/v1/users/"+id, ""); code != 204 {
		t.Errorf("delete: %d", code)
	}
	if got := next(t, reported); got != "users.deleted" {
		t.Errorf("got the event %s", got)
	}
	if code, _ := call(t, asAna, "GET", s.URL()+"/users/me", ""); code != 404 {
		t.Errorf("who am I, after the end: %d", code)
	}
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

func TestRefreshAndWrongPassword(t *testing.T) {
	for name, dsn := range map[string]func(testing.TB) string{
		"sqlite":     func(t testing.TB) string { return "sqlite:" + filepath.Join(t.TempDir(), "users.db") },
		"postgresql": testenv.Postgres,
	} {
		t.Run(name, func(t *testing.T) { refreshAndWrongPassword(t, dsn(t)) })
	}
}

func refreshAndWrongPassword(t *testing.T, dsn string) {
	s, _ := start(t, dsn)
	cfg := oauth2.Config{Endpoint: oauth2.Endpoint{TokenURL: s.URL() + "/token"}}
	for _, c := range [][2]string{{"admin", "wrong"}, {"nobody", "correct horse"}, {"ad\x00min", "correct horse"},
		{"\xff", "correct horse"}} {
		_, err := cfg.PasswordCredentialsToken(t.Context(), c[0], c[1])
		if refused := (*oauth2.RetrieveError)(nil); !errors.As(err, &refused) || refused.ErrorCode != "invalid_grant" {
			t.Errorf("login as %q: %v", c, err)
		}
	}
	if _, err := cfg.PasswordCredentialsToken(t.Context(), "", ""); err == nil {
		t.Error("login as an unknown user")
	}
	token, err := cfg.PasswordCredentialsToken(t.Context(), "admin", "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	old := token.AccessToken
	token.Expiry = time.Now().Add(-time.Minute)
	fresh, err := cfg.TokenSource(t.Context(), token).Token()
	if err != nil || fresh.AccessToken == old || fresh.RefreshToken == token.RefreshToken {
		t.Errorf("refresh: %v", err)
	}
}

// What a service that does not come up has taken is given back: the addresses, too.
func TestFailedStartFreesItsAddresses(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := free.Addr().String()
	_ = free.Close()
	broker := memory.Must(memory.New(memory.Config{}))
	defer broker.Close()
	_, err = users.New(t.Context(), platform.Config{Name: "users", Addr: "127.0.0.1:0", GRPCAddr: addr,
		DB:     "sqlite:" + filepath.Join(t.TempDir(), "users.db"),
		Broker: broker, LogWriter: io.Discard, Tokens: platform.Tokens{Secret: bytes.Repeat([]byte("s"), 32)},
		Users: []platform.SeedUser{{Username: "no name at all"}}})
	if err == nil {
		t.Fatal("a user without a name was made")
	}
	again, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatalf("the address of gRPC is not free: %v", err)
	}
	_ = again.Close()
}

func TestGRPC(t *testing.T) {
	s, _ := start(t, "sqlite:"+filepath.Join(t.TempDir(), "users.db"))
	dial := func(opts ...grpc.DialOption) *grpc.ClientConn {
		conn, err := grpc.NewClient(s.Peers.UsersGRPC, append(opts,
			grpc.WithTransportCredentials(insecure.NewCredentials()))...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	stranger, conn := dial(), dial(grpc.WithPerRPCCredentials(authngrpc.PerRPCInsecure(s.Guard.Token)))
	if res, err := healthpb.NewHealthClient(stranger).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil ||
		res.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health: %v %v", res, err)
	}
	if _, err := userpb.NewUserServiceClient(stranger).ListUsers(t.Context(),
		&userpb.ListUsersRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a stranger: %v", err)
	}
	c := userpb.NewUserServiceClient(conn)
	checkGRPC(t, c)
}

// checkGRPC makes each call, as each caller.
func checkGRPC(t *testing.T, c userpb.UserServiceClient) {
	t.Helper()
	ana, err := c.CreateUser(t.Context(), &userpb.CreateUserRequest{Username: "ana", Email: "ana@example.com",
		Password: "long enough"})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.GetUser(t.Context(), &userpb.GetUserRequest{UserId: ana.GetId()}); err != nil ||
		got.GetUsername() != "ana" || !got.GetCreatedAt().IsValid() {
		t.Errorf("GetUser: %v, %v", got, err)
	}
	email := "new@example.com"
	if got, err := c.UpdateUser(t.Context(), &userpb.UpdateUserRequest{UserId: ana.GetId(), Email: &email}); err != nil ||
		got.GetEmail() != email || got.GetUsername() != "ana" {
		t.Errorf("UpdateUser: %v, %v", got, err)
	}
	page, err := c.ListUsers(t.Context(), &userpb.ListUsersRequest{Limit: 1})
	if err != nil || page.GetTotal() != 2 || len(page.GetUsers()) != 1 || page.GetNextPageToken() == "" {
		t.Errorf("ListUsers: %v, %v", page, err)
	}
	for what, c := range map[string]struct {
		call func() error
		code codes.Code
	}{
		"get of an unknown user": {func() error {
			_, err := c.GetUser(t.Context(), &userpb.GetUserRequest{UserId: "x"})
			return err
		}, codes.NotFound},
		"create invalid": {func() error {
			_, err := c.CreateUser(t.Context(), &userpb.CreateUserRequest{})
			return err
		}, codes.InvalidArgument},
		"create twice": {func() error {
			_, err := c.CreateUser(t.Context(), &userpb.CreateUserRequest{Username: "ana", Email: "c@example.com",
				Password: "long enough"})
			return err
		}, codes.AlreadyExists},
		"list too many": {func() error {
			_, err := c.ListUsers(t.Context(), &userpb.ListUsersRequest{Limit: 9999})
			return err
		}, codes.InvalidArgument},
		"list by a forgery": {func() error {
			_, err := c.ListUsers(t.Context(), &userpb.ListUsersRequest{PageToken: "x"})
			return err
		}, codes.InvalidArgument},
		"delete of an unknown user": {func() error {
			_, err := c.DeleteUser(t.Context(), &userpb.DeleteUserRequest{UserId: "x"})
			return err
		}, codes.NotFound},
	} {
		if err := c.call(); status.Code(err) != c.code {
			t.Errorf("%s: %v, want %v", what, err, c.code)
		}
	}
	if res, err := c.DeleteUser(t.Context(), &userpb.DeleteUserRequest{UserId: ana.GetId()}); err != nil ||
		!res.GetSuccess() {
		t.Errorf("DeleteUser: %v, %v", res, err)
	}
}
