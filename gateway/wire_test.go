package gateway_test

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sillar-go/sillar/breaker"
	"github.com/sillar-go/sillar/gateway"
)

// A bomb is passed on as it came: not unpacked, not kept.
func TestGzipBombAtConstantMemory(t *testing.T) {
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	for zeros := make([]byte, 1<<20); bomb.Len() < 48<<10; { // of some 48 MiB
		_, _ = z.Write(zeros)
		_ = z.Flush()
	}
	_ = z.Close()
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(bomb.Bytes())
	})
	_, url := start(t, gateway.Config{Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{up}}}})
	client := &http.Client{Transport: &http.Transport{DisableCompression: true}}
	defer client.CloseIdleConnections()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	res, err := client.Get(url + "/a")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	n, err := io.Copy(io.Discard, res.Body)
	runtime.ReadMemStats(&after)
	if n != int64(bomb.Len()) || err != nil || res.Header.Get("Content-Encoding") != "gzip" {
		t.Fatalf("%d bytes of %d, %v", n, bomb.Len(), err)
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 4<<20 {
		t.Fatalf("%d bytes of memory for a bomb of %d", used, bomb.Len())
	}
}

// The address of an instance comes from the configuration, whatever the client writes.
func TestClientsNameNoUpstream(t *testing.T) {
	var asked atomic.Int32
	other := upstream(t, func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	host := strings.TrimPrefix(other, "http://")
	_, url := start(t, gateway.Config{Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{echoing(t)}}}})
	for _, request := range []string{
		"GET " + other + "/a/x HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n",
		"GET /a//" + host + "/x HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n",
		"GET /a/@" + host + "/x HTTP/1.1\r\nHost: " + host + "\r\nX-Forwarded-Host: " + host +
			"\r\nConnection: close\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n",
	} {
		raw(t, url, request)
	}
	if asked.Load() != 0 {
		t.Fatalf("another host was asked %d times", asked.Load())
	}
}

func TestConnectOverHTTP2(t *testing.T) {
	_, url := start(t, gateway.Config{Routes: []gateway.Route{{Prefix: "/", Upstreams: []string{echoing(t)}}}})
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	defer tr.CloseIdleConnections()
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodConnect, url, http.NoBody)
	req.Host = "internal:443"
	res, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 405 || res.ProtoMajor != 2 {
		t.Fatalf("%s %s", res.Proto, res.Status)
	}
}

// What concerns one connection passes in neither direction, nor in 1xx.
func TestHopByHopHeaders(t *testing.T) {
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		for _, name := range []string{"Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Connection", "Te", "X-Hop",
			"X-Correlation-Id"} {
			if v := r.Header.Values(name); len(v) > 0 && name != "X-Correlation-Id" {
				w.Header().Add("Arrived", name+"="+v[0])
			}
		}
		w.Header().Set("Connection", "X-Hop")
		w.Header().Set("X-Hop", "1")
		w.Header().Set("Keep-Alive", "timeout=5")
		w.Header().Set("Proxy-Authenticate", "Basic")
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusOK)
	})
	checkHops(t, up)
}

// checkHops sends headers for one hop through the gateway.
func checkHops(t *testing.T, up string) {
	t.Helper()
	_, url := start(t, gateway.Config{Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{up}}}})
	check := func(what string, h http.Header) {
		for _, name := range []string{"X-Hop", "Keep-Alive", "Proxy-Authenticate", "Arrived"} {
			if v := h.Values(name); len(v) > 0 {
				t.Errorf("%s: %s: %v", what, name, v)
			}
		}
	}
	hints := 0
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(_ int,
		h textproto.MIMEHeader) error {
		hints++
		check("103", http.Header(h))
		return nil
	}})
	req, _ := http.NewRequestWithContext(ctx, "GET", url+"/a", nil)
	for k, v := range map[string]string{"Connection": "X-Hop", "X-Hop": "1", "Keep-Alive": "5",
		"Proxy-Connection": "keep-alive", "Te": "gzip"} {
		req.Header.Set(k, v)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if check("200", res.Header); hints != 1 {
		t.Errorf("%d hints", hints)
	}
}

// A megabyte that no instance has seen goes elsewhere, whole; one that an instance has read is never sent again.
func TestBodiesAreProcessedOnce(t *testing.T) {
	body := make([]byte, 1<<20)
	_, _ = rand.Read(body)
	want := fmt.Sprintf("%x", sha256.Sum256(body))
	gone := httptest.NewServer(nil)
	gone.Close()
	var processed atomic.Int32
	hashing := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		h := sha256.New()
		_, _ = io.Copy(h, r.Body)
		processed.Add(1)
		fmt.Fprintf(w, "%x", h.Sum(nil))
	})
	dropping := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		processed.Add(1)
		panic(http.ErrAbortHandler)
	})
	off := breaker.Config{Failures: -1}
	_, url := start(t, gateway.Config{Routes: []gateway.Route{
		{Prefix: "/dial", Upstreams: []string{gone.URL, hashing}, Balance: gateway.RoundRobin, RetryBudget: -1, Breaker: off},
		{Prefix: "/drop", Upstreams: []string{dropping, dropping + "/"}, RetryBudget: -1, Attempts: 5, Breaker: off},
	}})
	for range 4 { // with a length and without
		for _, b := range []io.Reader{bytes.NewReader(body), io.MultiReader(bytes.NewReader(body))} {
			res, err := http.Post(url+"/dial", "application/octet-stream", b)
			if err != nil {
				t.Fatal(err)
			}
			text, _ := io.ReadAll(res.Body)
			if res.Body.Close(); string(text) != want {
				t.Fatalf("%d: %s arrived as %s", res.StatusCode, want, text)
			}
		}
	}
	for n, method := range []string{"POST", "PUT"} { // a PUT may be sent twice, but its body is not kept
		processed.Store(0)
		req, _ := http.NewRequestWithContext(t.Context(), method, url+"/drop", bytes.NewReader(body))
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if res.Body.Close(); res.StatusCode != 502 || processed.Load() != 1 {
			t.Fatalf("%d %s: %d, processed %d times", n, method, res.StatusCode, processed.Load())
		}
	}
}

func TestSlowHeaders(t *testing.T) {
	gw := gateway.Must(gateway.New(gateway.Config{Anonymous: true,
		Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{echoing(t)}}}}))
	defer gw.CloseIdleConnections()
	srv := gateway.NewServer("", gw)
	if srv.ReadHeaderTimeout <= 0 || srv.ReadHeaderTimeout > 30*time.Second || srv.MaxHeaderBytes > 1<<20 ||
		srv.IdleTimeout <= 0 {
		t.Fatalf("the limits: %v %d %v", srv.ReadHeaderTimeout, srv.MaxHeaderBytes, srv.IdleTimeout)
	}
	srv.ReadHeaderTimeout = 150 * time.Millisecond
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = srv.Serve(l) }()
	defer srv.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	begun := time.Now()
	go func() {
		for _, b := range []byte("GET /a HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 1000)) {
			if _, err := c.Write([]byte{b}); err != nil {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	_ = c.SetReadDeadline(begun.Add(5 * time.Second))
	if _, err := io.ReadAll(c); os.IsTimeout(err) || time.Since(begun) < 100*time.Millisecond {
		t.Fatalf("a slow header: %v after %v", err, time.Since(begun))
	}
}

// Half open, as many requests reach the service as the breaker has probes.
func TestHalfOpenAdmitsProbes(t *testing.T) {
	var bad atomic.Bool
	bad.Store(true)
	var arrived atomic.Int32
	release := make(chan struct{})
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		if bad.Load() {
			w.WriteHeader(500)
			return
		}
		arrived.Add(1)
		<-release
	})
	_, url := start(t, gateway.Config{Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{up}, MaxEjection: 1,
		Breaker: breaker.Config{Failures: 1, OpenFor: 50 * time.Millisecond, Probes: 3}}}})
	do(t, "GET", url+"/a", "")
	if a := do(t, "GET", url+"/a", ""); a.StatusCode != 503 || a.Header.Get("Retry-After") != "1" {
		t.Fatalf("open: %d %v", a.StatusCode, a.Header)
	}
	bad.Store(false)
	time.Sleep(70 * time.Millisecond)
	var g errgroup.Group
	var refused atomic.Int32
	for range 10 {
		g.Go(func() error {
			res, err := http.Get(url + "/a")
			if err != nil {
				return err
			}
			if res.Body.Close(); res.StatusCode == 503 && refused.Add(1) == 7 {
				close(release)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if arrived.Load() != 3 || refused.Load() != 7 {
		t.Fatalf("%d arrived, %d were refused", arrived.Load(), refused.Load())
	}
}

// Looks go out at once, and are remembered.
func TestServicesAreLookedAtTogetherAndRemembered(t *testing.T) {
	var looks atomic.Int32
	slow := func(w http.ResponseWriter, r *http.Request) { looks.Add(1); time.Sleep(200 * time.Millisecond) }
	var routes []gateway.Route
	for n := range 6 {
		routes = append(routes, gateway.Route{Prefix: fmt.Sprintf("/s%d", n), Upstreams: []string{upstream(t, slow)}})
	}
	gw, url := start(t, gateway.Config{Routes: routes})
	begun := time.Now()
	var g sync.WaitGroup
	for range 10 {
		g.Go(func() { do(t, "GET", url+"/health/services", "") })
	}
	g.Wait()
	if took := time.Since(begun); took > 800*time.Millisecond || looks.Load() != 6 {
		t.Fatalf("ten questions took %v and %d looks at six services", took, looks.Load())
	}
	all, err := gw.Services(t.Context())
	if err != nil || len(all) != 6 || all["s3"].LatencyMS < 200 || all["s3"].StatusCode != 200 ||
		all["s3"].Status != "up" {
		t.Fatalf("%v %v", all, err)
	}
}
