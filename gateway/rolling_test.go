package gateway_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sillar-go/sillar/gateway"
)

// killSeen is how long the end of an idle connection may take to reach the gateway: what is written meanwhile is lost.
const killSeen = 100 * time.Millisecond

// fleet is a service of several instances, each at an address of the loopback network and at one port.
type fleet struct {
	t    *testing.T
	port string

	mu      sync.Mutex
	servers map[string]*http.Server
	begun   map[string]int // how often each POST was begun, by its number
	cuts    []time.Time    // when an instance was killed
}

// listen starts an instance at an address, as soon as it is free.
func (f *fleet) listen(ip string) {
	f.t.Helper()
	var l net.Listener
	var err error
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		if l, err = net.Listen("tcp", net.JoinHostPort(ip, f.port)); err == nil {
			break
		}
		if time.Now().After(deadline) {
			f.t.Fatal(err)
		}
	}
	_, f.port, _ = net.SplitHostPort(l.Addr().String())
	srv := &http.Server{Handler: f, ReadHeaderTimeout: time.Minute}
	f.mu.Lock()
	f.servers[ip] = srv
	f.mu.Unlock()
	go func() { _ = srv.Serve(l) }()
}

func (f *fleet) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		f.mu.Lock()
		f.begun[r.Header.Get("X-Number")]++
		f.mu.Unlock()
	}
	_, _ = io.Copy(io.Discard, r.Body)
	time.Sleep(2 * time.Millisecond) // so that a kill meets requests
	_, _ = io.WriteString(w, "done")
}

// kill ends an instance at once, with all that it does.
func (f *fleet) kill(ip string) {
	f.mu.Lock()
	srv := f.servers[ip]
	delete(f.servers, ip)
	f.cuts = append(f.cuts, time.Now())
	f.mu.Unlock()
	_ = srv.Close()
}

// cutBetween reports whether an instance was killed while a request was on its way.
func (f *fleet) cutBetween(began, ended time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, at := range f.cuts {
		if at.After(began.Add(-killSeen)) && at.Before(ended) {
			return true
		}
	}
	return false
}

// load sends requests until it is stopped, and checks that those fail only whose outcome is unknown.
func (f *fleet) load(url string, clients int) (sent func() int64, stop func() (failedPOSTs int64)) {
	ctx, cancel := context.WithCancel(f.t.Context())
	var number, failed atomic.Int64
	var all sync.WaitGroup
	tr := &http.Transport{MaxIdleConnsPerHost: clients}
	for n := range clients {
		all.Go(func() {
			method := []string{"GET", "POST", "DELETE"}[n%3]
			for ctx.Err() == nil {
				id := fmt.Sprint(number.Add(1))
				var body io.Reader
				if method == "POST" {
					body = strings.NewReader("an order")
				}
				req, _ := http.NewRequestWithContext(f.t.Context(), method, url, body)
				req.Header.Set("X-Number", id)
				began := time.Now()
				res, err := tr.RoundTrip(req)
				if err != nil {
					f.t.Error(err)
					return
				}
				text, err := io.ReadAll(res.Body)
				_ = res.Body.Close()
				ok := err == nil && res.StatusCode == 200 && string(text) == "done"
				f.mu.Lock()
				begun := f.begun[id]
				f.mu.Unlock()
				switch {
				case begun > 1:
					f.t.Errorf("POST %s was begun %d times", id, begun)
				case ok:
				case method != "POST":
					f.t.Errorf("%s %s failed: %s %v %s", method, id, res.Status, err, text)
				case !f.cutBetween(began, time.Now()):
					f.t.Errorf("POST %s failed although no instance that had it was killed: %s %v", id, res.Status, err)
				default:
					failed.Add(1)
				}
			}
		})
	}
	return number.Load, func() int64 {
		cancel()
		all.Wait()
		tr.CloseIdleConnections()
		return failed.Load()
	}
}

// Instances are killed and restarted one after the other, at their address and at new ones that the name server then
// has. No idempotent request fails, and of POSTs only those that an instance had when it was killed.
func TestRollingRestartsFailNoIdempotentRequest(t *testing.T) {
	for _, instances := range []int{1, 2, 5} {
		for _, moving := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d instances, moving %v", instances, moving), func(t *testing.T) {
				t.Parallel()
				f := &fleet{t: t, port: "0", servers: map[string]*http.Server{}, begun: map[string]int{}}
				var names nameServer
				network := 10 * instances // each case has addresses of its own
				if moving {
					network++
				}
				ip := func(n int) string { return fmt.Sprintf("127.9.%d.%d", network, n+1) }
				var addresses []string
				for n := range instances {
					f.listen(ip(n))
					addresses = append(addresses, ip(n))
				}
				names.set("users.test", addresses...)
				gw, url := start(t, gateway.Config{
					HealthInterval: 100 * time.Millisecond,
					Registries: map[string]gateway.Registry{"dns": gateway.DNS{Resolver: names.resolver(),
						Interval: 500 * time.Millisecond}},
					Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{"dns+http://users.test:" + f.port},
						PreserveHost: true}},
				})
				run(t, gw)
				sent, stop := f.load(url+"/a", 9)
				until := func(requests int64) {
					for deadline := time.Now().Add(20 * time.Second); sent() < requests && time.Now().Before(deadline); {
						time.Sleep(time.Millisecond)
					}
				}
				until(1000) // the retry budget is a part of the requests
				for n := range instances {
					if moving {
						f.listen(ip(n + instances))
						addresses[n] = ip(n + instances)
						names.set("users.test", addresses...)
						f.kill(ip(n))
					} else {
						f.kill(ip(n))
						time.Sleep(200 * time.Millisecond) // it starts
						f.listen(ip(n))
					}
					until(sent() + 300)
				}
				failed := stop()
				t.Logf("%d requests, %d POSTs of unknown outcome", sent(), failed)
				for _, srv := range f.servers {
					_ = srv.Close()
				}
			})
		}
	}
}
