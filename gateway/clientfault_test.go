package gateway_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sillar-go/sillar/breaker"
	"github.com/sillar-go/sillar/gateway"
)

// verdicts counts what breakers counted.
type verdicts struct{ failures, successes, ignored atomic.Int64 }

func (v *verdicts) called(c breaker.Call) {
	switch c.Outcome {
	case breaker.Failure:
		v.failures.Add(1)
	case breaker.Success:
		v.successes.Add(1)
	case breaker.Ignore:
		v.ignored.Add(1)
	}
}

// TestClientsShutNoServiceOff sends what no service can get, to instances over HTTP/1 and HTTP/2, more often than opens
// a breaker: the client gets a 4xx, the breakers count no failure, and the next client is served.
func TestClientsShutNoServiceOff(t *testing.T) {
	body := "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"
	plain := upstream(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
	}))
	srv.EnableHTTP2 = true
	srv.Config.MaxHeaderBytes = 8 << 10 // what it advertises
	srv.StartTLS()
	t.Cleanup(srv.Close)
	roots := srv.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	for name, up := range map[string]string{"HTTP/1": plain, "HTTP/2": srv.URL} {
		for attack, request := range map[string]string{
			"a trailer with a space":      "POST /a HTTP/1.1\r\nHost: x\r\nTrailer: a b\r\n" + body,
			"a trailer with a control":    "POST /a HTTP/1.1\r\nHost: x\r\nTrailer: a\x01b\r\n" + body,
			"a trailer that is not ASCII": "POST /a HTTP/1.1\r\nHost: x\r\nTrailer: \xc3\xa4\r\n" + body,
			"an empty trailer name":       "POST /a HTTP/1.1\r\nHost: x\r\nTrailer: ,,\r\n" + body,
			"a trailer of brackets":       "POST /a HTTP/1.1\r\nHost: x\r\nTrailer: (a)\r\n" + body,
			"a forbidden trailer":         "POST /a HTTP/1.1\r\nHost: x\r\nTrailer: Content-Length\r\n" + body,
			"a trailer value with controls": "POST /a HTTP/1.1\r\nHost: x\r\nTrailer: X-A\r\nTransfer-Encoding: " +
				"chunked\r\n\r\n1\r\na\r\n0\r\nX-A: a\x01b\r\n\r\n",
			"a broken chunk":        "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
			"a body that stops":     "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\na",
			"a strange method":      "G{T /a HTTP/1.1\r\nHost: x\r\n\r\n",
			"a long header":         "GET /a HTTP/1.1\r\nHost: x\r\nX-A: " + strings.Repeat("a", 30<<10) + "\r\n\r\n",
			"an Expect":             "POST /a HTTP/1.1\r\nHost: x\r\nExpect: the worst\r\nContent-Length: 1\r\n\r\na",
			"an upgrade to nothing": "GET /a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\r\n",
			"a smuggled upgrade":    "GET /a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\nUpgrade: a b\x7f\r\n\r\n",
			"a strange host":        "GET /a HTTP/1.1\r\nHost: a_b{}\r\n\r\n",
			"a strange query":       "GET /a?a|b{c}%zz HTTP/1.1\r\nHost: x\r\n\r\n",
		} {
			t.Run(name+"/"+attack, func(t *testing.T) {
				var v verdicts
				_, url := start(t, gateway.Config{
					UpstreamTLS: &tls.Config{RootCAs: roots},
					Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{up}, MaxEjection: 1,
						Breaker: breaker.Config{Failures: 2, OnCall: v.called}}},
				})
				for range 5 {
					answer := rawHalf(t, url, request)
					if strings.HasPrefix(answer, "HTTP/1.1 5") {
						t.Errorf("the client got %.60q, want no 5xx", answer)
					}
				}
				if a := do(t, "GET", url+"/a", ""); a.StatusCode != 200 {
					t.Errorf("the next client gets %s", a.Status)
				}
				if n := v.failures.Load(); n != 0 {
					t.Errorf("the breaker counted %d failures", n)
				}
			})
		}
	}
}

// rawHalf sends bytes and then closes its direction, as a client does that has said all.
func rawHalf(t *testing.T, url, request string) string {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	_ = c.(*net.TCPConn).CloseWrite()
	text, _ := io.ReadAll(c)
	return string(text)
}

// Two instances restart one after the other, and one fails at an endpoint: no client is refused while an instance
// works.
func TestOpenBreakersOfMostAreNotFollowed(t *testing.T) {
	for _, instances := range []int{1, 2, 5} {
		t.Run(fmt.Sprint(instances), func(t *testing.T) {
			var down [5]atomic.Bool
			var ups []string
			for i := range instances {
				ups = append(ups, upstream(t, func(w http.ResponseWriter, r *http.Request) {
					if down[i].Load() {
						panic(http.ErrAbortHandler)
					}
				}))
			}
			_, url := start(t, gateway.Config{Routes: []gateway.Route{{Prefix: "/a", Upstreams: ups, RetryBudget: -1,
				Attempts: instances + 1}}})
			for i := range instances { // each is down until its breaker is open, and then returns
				down[i].Store(true)
				for range 40 {
					do(t, "POST", url+"/a", "x")
				}
				down[i].Store(false)
			}
			for n := range 50 {
				if a := do(t, "GET", url+"/a", ""); a.StatusCode != 200 {
					t.Fatalf("request %d after the restarts: %s", n, a.Status)
				}
			}
		})
	}
}

// A health check that succeeds lets an open breaker probe at once.
func TestHealthChecksShortenOpenBreakers(t *testing.T) {
	var bad atomic.Bool
	bad.Store(true)
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		if bad.Load() {
			w.WriteHeader(500)
		}
	})
	gw, url := start(t, gateway.Config{HealthInterval: 20 * time.Millisecond,
		Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{up}, MaxEjection: 1}}})
	for range 6 {
		do(t, "GET", url+"/a", "")
	}
	if a := do(t, "GET", url+"/a", ""); a.StatusCode != 503 {
		t.Fatalf("open: %s", a.Status)
	}
	bad.Store(false)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = gw.Run(ctx) })
	defer wg.Wait()
	defer cancel()
	deadline := time.Now().Add(5 * time.Second)
	for do(t, "GET", url+"/a", "").StatusCode != 200 {
		if time.Now().After(deadline) {
			t.Fatal("the breaker stays open beside a service that is up")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// Servers read many names as those that the gateway owns. None of them passes, from headers or trailers.
func TestHeaderAliasesOfOwnedNames(t *testing.T) {
	_, url := start(t, gateway.Config{RemoveHeaders: []string{"X-Http-Method-Override"},
		Routes: []gateway.Route{{Prefix: "/", Upstreams: []string{echoing(t)}}}})
	for _, name := range []string{
		"X-User-Id", "X_User_Id", "X.User.Id", "X~User~Id", "X!User!Id", "X*User+Id", "x|user|id", "X~Forwarded~For",
		"X_Forwarded_For", "X-Forwarded-Ssl", "X-Forwarded-Anything",
		"X-Original-Method", "X-Original-Host", "X~Original~URL", "X-Client-Ip", "True-Client-Ip", "True_Client~IP",
		"CF-Connecting-IP", "X-Cluster-Client-Ip", "X-Real-IP", "X^Real^IP", "Forwarded",
		"X-Http-Method-Override", "X~HTTP~Method~Override",
		"Proxy", "PROXY", "WL-Proxy-Client-IP", "X-Host", "Content_Length", "content.length", "Transfer_Encoding",
	} {
		text := raw(t, url, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"+name+": evil\r\n\r\n")
		if strings.Contains(text, "evil") {
			t.Errorf("%s reached the service", name)
		}
		text = raw(t, url, "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nTrailer: "+name+
			"\r\n\r\n1\r\na\r\n0\r\n"+name+": evil\r\n\r\n")
		if strings.Contains(text, "evil") {
			t.Errorf("%s reached the service as a trailer", name)
		}
	}
}

// Services that fold the case of methods must not get what a route's Methods and Public did not see.
func TestMethodsInLowerCaseAreRefused(t *testing.T) {
	_, url := start(t, gateway.Config{Auth: auth, Routes: []gateway.Route{
		{Name: "delete", Prefix: "/a", Upstreams: []string{echoing(t)}, Methods: []string{"DELETE"}},
		{Prefix: "/a", Upstreams: []string{echoing(t)}, Public: []string{"/**"}},
	}})
	for method, want := range map[string]string{"delete": "405", "Delete": "405", "PROPFIND": "200", "DELETE": "401"} {
		text := raw(t, url, method+" /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		if !strings.HasPrefix(text, "HTTP/1.1 "+want) {
			t.Errorf("%s: got %.40q, want %s", method, text, want)
		}
	}
}

// The path that was received, the one that is checked and the one that is sent are one.
func TestPathsWithCharactersThatNetURLDoesNotKeep(t *testing.T) {
	_, url := start(t, gateway.Config{Routes: []gateway.Route{
		{Prefix: "/no", Upstreams: []string{echoing(t)}}, {Prefix: "/yes", EncodedSlashes: true, KeepPrefix: true,
			Upstreams: []string{echoing(t)}},
	}})
	for path, want := range map[string]string{
		"/no/a%2Fb|c": "400", "/no/a%2fb{": "400", `/no/a%2Fb"`: "400", "/no/a%2Fb\xff": "400", "/no/%2e%2e|": "/%2e%2e%7C",
		"/no/%c0%ae%C0%AE/b": "400", "/no/..%c0%afb": "400", "/no/a%e0%80%af": "400", "/no/a%f0%80%80%af": "400",
		"/no/a\xc0\xaf": "400", "/no/%c0b": "/%c0b", "/no/%e0%a4%85": "/%e0%a4%85", // of Latin-1, of Devanagari
		"/no/..%2F|": "400", "/no/a|b": "/a%7Cb", "/no/a^b%20c": "/a%5Eb%20c",
		"/yes/a%2Fb|c": "/yes/a%2Fb%7Cc", "/yes/a%2fb": "/yes/a%2fb", "/yes/\xc3\xa4%2Fb": "/yes/%C3%A4%2Fb",
	} {
		text := raw(t, url, "GET "+path+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		_, body, _ := strings.Cut(text, "\r\n\r\n")
		var e echo
		_ = json.Unmarshal([]byte(body), &e)
		if got := e.URI; want == "400" && !strings.HasPrefix(text, "HTTP/1.1 400 ") || want != "400" && got != want {
			t.Errorf("%q: the service saw %q (%.20q), want %s", path, got, text, want)
		}
	}
}

// A silent instance is waited for once.
func TestSilentInstanceIsTriedOnce(t *testing.T) {
	var arrived atomic.Int32
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		arrived.Add(1)
		<-r.Context().Done()
	})
	var v verdicts
	_, url := start(t, gateway.Config{Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{up, up + "/"},
		Timeout: 100 * time.Millisecond, Breaker: breaker.Config{OnCall: v.called}}}})
	began := time.Now()
	if a := do(t, "GET", url+"/a", ""); a.StatusCode != 504 || arrived.Load() != 1 {
		t.Errorf("got %s after %s and %d tries, want 504 after one", a.Status, time.Since(began), arrived.Load())
	}
}

// A service that ends the connection of a header that is too large for it is not unhealthy.
func TestLargeHeadersShutNoServiceOff(t *testing.T) {
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		if len(r.Header.Get("X-A"))+len(r.URL.RawQuery) > 4<<10 {
			panic(http.ErrAbortHandler)
		}
	})
	var v verdicts
	_, url := start(t, gateway.Config{Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{up}, MaxEjection: 1,
		Breaker: breaker.Config{OnCall: v.called}}}})
	for range 6 {
		if a := do(t, "POST", url+"/a", "", "X-A", strings.Repeat("a", 9<<10)); a.StatusCode != 431 {
			t.Errorf("got %s, want 431", a.Status)
		}
		if a := do(t, "POST", url+"/a?"+strings.Repeat("a", 9<<10), ""); a.StatusCode != 431 {
			t.Errorf("got %s for a long query, want 431", a.Status)
		}
	}
	if a := do(t, "GET", url+"/a", ""); a.StatusCode != 200 || v.failures.Load() != 0 {
		t.Errorf("the next client got %s after %d failures", a.Status, v.failures.Load())
	}
	for range 5 { // with a small header it is a failure
		do(t, "POST", url+"/a", "", "X-A", strings.Repeat("a", 5<<10))
	}
	if a := do(t, "GET", url+"/a", ""); a.StatusCode != 503 {
		t.Errorf("after five failures: got %s, want 503", a.Status)
	}
}
