package breakerhttp_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sillar-go/sillar/breaker"
	"github.com/sillar-go/sillar/breaker/breakerhttp"
)

// A hundred services that fail are remembered, whatever else is called, in bounded memory.
func TestAHundredHostsAmongJunk(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.Host, "broken") {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	defer srv.Close()
	real := &http.Transport{MaxIdleConns: 4, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, srv.Listener.Addr().String())
	}}
	defer real.CloseIdleConnections()
	tr := breakerhttp.Must(breakerhttp.NewTransport(real, breakerhttp.Config{MaxHosts: 128,
		Breaker: breaker.Config{Failures: 2, FailureRate: 0.5, OpenFor: time.Hour}}))
	get := func(tr http.RoundTripper, host string) (int, error) {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+host+"/", nil)
		res, err := tr.RoundTrip(req)
		if err != nil {
			return 0, err
		}
		_, _ = io.Copy(io.Discard, res.Body)
		return res.StatusCode, res.Body.Close()
	}
	for n := range 100 {
		for range 2 {
			if code, err := get(tr, fmt.Sprint("broken", n)); code != 500 {
				t.Fatal(code, err)
			}
		}
	}
	for n := range 500 { // through real connections
		if code, err := get(tr, fmt.Sprint("junk", n)); code != 200 {
			t.Fatal(code, err)
		}
	}
	before := heap()
	for n := range 50_000 { // the registry alone: this is what grows, if anything does
		tr.Breaker(fmt.Sprintf("%d.%s", n, strings.Repeat("junk", 60)))
	}
	if grown := heap() - before; grown > 4<<20 {
		t.Errorf("50,000 junk hosts hold %d bytes", grown)
	}
	for n := range 100 {
		if s := tr.Breaker(fmt.Sprint("broken", n)).State(); s != breaker.Open {
			t.Fatalf("broken%d is %v: junk pushed it out", n, s)
		}
	}
	if code, err := get(tr, "junk7"); code != 200 {
		t.Fatal(code, err)
	}
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestPortsAndCaseAreOneHost(t *testing.T) {
	b := &base{answer: func(*http.Request) (*http.Response, error) { return status(200) }}
	tr := breakerhttp.Must(breakerhttp.NewTransport(b, breakerhttp.Config{}))
	for _, u := range []string{"http://H:80/", "http://h/", "https://h:443/", "http://h:8080/", "http://[::1]:80/",
		"http://[::1]/", "http://[::80]/"} {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, u, nil)
		res, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
	}
	if one, other := tr.Breaker("h").Counts().Successes, tr.Breaker("h:8080").Counts().Successes; one != 3 || other != 1 {
		t.Fatalf("h %d, h:8080 %d", one, other)
	}
	if one, other := tr.Breaker("[::1]").Counts().Successes, tr.Breaker("[::80]").Counts().Successes; one != 2 ||
		other != 1 {
		t.Fatalf("[::1] %d, [::80] %d", one, other)
	}
}
