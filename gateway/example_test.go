package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"time"

	"github.com/sillar-go/sillar/gateway"
)

// A server of one's own has its listener guarded.
func ExampleGuard() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	srv := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.NotFoundHandler()}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(gateway.Guard(l)) }()

	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		panic(err)
	}
	fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
	var proto, status string
	_, _ = fmt.Fscan(c, &proto, &status)
	fmt.Println(status)
	_ = c.Close()
	_ = srv.Shutdown(context.Background())
	fmt.Println(errors.Is(<-ended, http.ErrServerClosed))
	// Output:
	// 400
	// true
}

// Routes that are not valid change nothing, and the error says which field is wrong.
func ExampleGateway_Reload() {
	gw := gateway.Must(gateway.New(gateway.Config{Anonymous: true,
		Routes: []gateway.Route{{Prefix: "/users", Upstreams: []string{"http://users:8000"}}}}))
	err := gw.Reload([]gateway.Route{{Prefix: "/users", Upstreams: []string{"users:8000"}}})
	var wrong *gateway.RouteError
	fmt.Println(errors.As(err, &wrong), wrong.Prefix, wrong.Field)
	// Output: true /users upstreams
}

// fixed is a registry of one service, whose instances do not change.
type fixed []gateway.Instance

func (f fixed) Watch(ctx context.Context, _ *url.URL, update func([]gateway.Instance)) error {
	update(f)
	<-ctx.Done()
	return nil
}

// A registry of one's own finds the instances of an upstream.
func ExampleRegistry() {
	users := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "Host: ", r.Host)
	}))
	defer users.Close()
	gw := gateway.Must(gateway.New(gateway.Config{
		Anonymous:  true,
		Logger:     slog.New(slog.DiscardHandler),
		Registries: map[string]gateway.Registry{"fixed": fixed{{Address: users.Listener.Addr().String(), Weight: 1}}},
		Routes:     []gateway.Route{{Prefix: "/users", Upstreams: []string{"fixed+http://users.internal"}}},
	}))
	defer gw.CloseIdleConnections()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- gw.Run(ctx) }()

	w := httptest.NewRecorder()
	gw.ServeHTTP(w, httptest.NewRequest("GET", "/users/7", nil))
	fmt.Println(w.Code, w.Body)
	cancel()
	fmt.Println(<-ended)
	// Output:
	// 200 Host: users.internal
	// <nil>
}
