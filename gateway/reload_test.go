package gateway_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sillar-go/sillar/breaker"
	"github.com/sillar-go/sillar/gateway"
)

func TestReloadKeepsWhatIsKnown(t *testing.T) {
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) })
	r := gateway.Route{Prefix: "/a", Upstreams: []string{up}, MaxEjection: 1, Breaker: breaker.Config{Failures: 1}}
	gw, url := start(t, gateway.Config{Routes: []gateway.Route{r}})
	do(t, "GET", url+"/a", "")
	r.MaxBody = 1
	if err := gw.Reload([]gateway.Route{r}); err != nil {
		t.Fatal(err)
	}
	if a := do(t, "GET", url+"/a", ""); a.StatusCode != 503 {
		t.Fatalf("after the reload the breaker is %d", a.StatusCode)
	}
}

func TestReloadLetsGo(t *testing.T) {
	var open atomic.Int32
	old := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stream" {
			for n := range 10 {
				fmt.Fprint(w, n)
				_ = http.NewResponseController(w).Flush()
				time.Sleep(10 * time.Millisecond)
			}
		}
	}))
	old.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		switch s {
		case http.StateNew:
			open.Add(1)
		case http.StateClosed:
			open.Add(-1)
		}
	}
	old.Start()
	defer old.Close()
	gw, url := start(t, gateway.Config{Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{old.URL}}}})
	do(t, "GET", url+"/a", "")
	res, err := http.Get(url + "/a/stream")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if err := gw.Reload([]gateway.Route{{Prefix: "/a", Upstreams: []string{echoing(t)}}}); err != nil {
		t.Fatal(err)
	}
	if a := do(t, "GET", url+"/a/x", ""); a.echo(t).URI != "/x" {
		t.Fatalf("the new route: %s", a.text)
	}
	if text, err := io.ReadAll(res.Body); string(text) != "0123456789" || err != nil {
		t.Fatalf("the stream of the old route: %q %v", text, err)
	}
	if err := gw.Reload(nil); err != nil {
		t.Fatal(err)
	}
	gw.CloseIdleConnections()
	for deadline := time.Now().Add(30 * time.Second); open.Load() != 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d connections to who is gone", open.Load())
		}
	}
}

func TestRoutesThatCannotMatch(t *testing.T) {
	for field, r := range map[string]gateway.Route{
		"prefix /a/*":              {Prefix: "/a/*", Upstreams: []string{"http://a"}},
		"prefix /{id}":             {Prefix: "/{id}", Upstreams: []string{"http://a"}},
		"prefix with a query":      {Prefix: "/a?b", Upstreams: []string{"http://a"}},
		"prefix that is not ASCII": {Prefix: "/\u00e4", Upstreams: []string{"http://a"}},
		"prefix with a blank":      {Prefix: "/a b", Upstreams: []string{"http://a"}},
		"rewrite with a blank":     {Prefix: "/a", Rewrite: "/a b", Upstreams: []string{"http://a"}},
		"public not ASCII":         {Prefix: "/a", Public: []string{"GET /\u00e4"}, Upstreams: []string{"http://a"}},
		"public with a query":      {Prefix: "/a", Public: []string{"GET /a?b"}, Upstreams: []string{"http://a"}},
		"hosts not ASCII":          {Prefix: "/a", Hosts: []string{"\u00e4.example"}, Upstreams: []string{"http://a"}},
		"openapi after a -":        {Prefix: "/a", OpenAPI: "-/x", Upstreams: []string{"http://a"}},
		"upstreams port 99999":     {Prefix: "/a", Upstreams: []string{"http://a:99999"}},
		"upstreams port 0":         {Prefix: "/a", Upstreams: []string{"http://a:0"}},
		"upstreams without a host": {Prefix: "/a", Upstreams: []string{"http://:80"}},
	} {
		want, _, _ := strings.Cut(field, " ")
		var wrong *gateway.RouteError
		if err := r.Validate(); !errors.As(err, &wrong) || wrong.Field != want {
			t.Errorf("%s: %v", field, err)
		}
	}
}
