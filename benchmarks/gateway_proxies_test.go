package benchmarks

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/gateway"
)

// proxyVariable makes this binary one of the contestants, in a process of its own.
const proxyVariable = "SILLAR_BENCH_PROXY"

func init() {
	if name := os.Getenv(proxyVariable); name != "" {
		if err := proxyMain(name, os.Getenv("UPSTREAM"), os.Getenv("ADDR")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

// proxySecret signs the tokens of the benchmark.
const proxySecret = "a secret of the benchmark alone, 32 bytes"

// proxyMain serves as a contestant.
func proxyMain(name, upstream, addr string) error {
	target, err := url.Parse("http://" + upstream)
	if err != nil {
		return err
	}
	switch name {
	case "upstream":
		body := []byte(`{"id":"7","name":"Ana","email":"ana@example.com","roles":["customer"],"active":true}`)
		return http.ListenAndServe(addr, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			if strings.HasSuffix(r.URL.Path, "/large") {
				_, _ = w.Write(make([]byte, 1<<20))
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(body)
		}))
	case "bare", "bare-pool":
		tuned := http.DefaultTransport.(*http.Transport).Clone()
		tuned.MaxIdleConns, tuned.MaxIdleConnsPerHost, tuned.DisableCompression = 2048, 256, true
		bare := &httputil.ReverseProxy{Transport: tuned, Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.SetXForwarded()
		}}
		if name == "bare-pool" { // without one it makes 32 KiB anew for each answer
			bare.BufferPool = proxyBuffers{}
		}
		return http.ListenAndServe(addr, http.StripPrefix("/users", bare))
	case "naive":
		return http.ListenAndServe(addr, naiveProxy(upstream))
	}
	registry := prometheus.NewRegistry()
	exporter, err := otelprometheus.New(otelprometheus.WithRegisterer(registry))
	if err != nil {
		return err
	}
	cfg := gateway.Config{
		Logger: slog.New(slog.DiscardHandler), MeterProvider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter)),
		Anonymous: true,
		Routes: []gateway.Route{{Prefix: "/users", Upstreams: []string{"http://" + upstream},
			RateLimit: &gateway.RateLimit{Rate: 1e9, Burst: 1e9}}},
	}
	switch name {
	case "sillar":
	case "sillar-log": // each request, as JSON
		null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		cfg.Logger = slog.New(slog.NewJSONHandler(null, nil))
	case "sillar-jwt", "sillar-jwt-uncached":
		keys, err := authn.NewSecretKeySet([]byte(proxySecret))
		if err != nil {
			return err
		}
		cache := 0
		if name == "sillar-jwt-uncached" {
			cache = -1
		}
		v, err := authn.NewVerifier(keys, authn.VerifierConfig{Issuer: authnIssuer, Audience: []string{authnAudience},
			CacheSize: cache, Logger: cfg.Logger})
		if err != nil {
			return err
		}
		cfg.Auth, cfg.Anonymous, cfg.Routes[0].Roles = v, false, []string{"customer"}
	default:
		return errors.New("no such proxy: " + name)
	}
	gw, err := gateway.New(cfg)
	if err != nil {
		return err
	}
	go func() { _ = gw.Run(context.Background()) }()
	return gateway.NewServer(addr, gw).ListenAndServe()
}

type proxyBuffers struct{}

var proxyPool = sync.Pool{New: func() any { return new([32 << 10]byte) }}

func (proxyBuffers) Get() []byte  { return proxyPool.Get().(*[32 << 10]byte)[:] }
func (proxyBuffers) Put(b []byte) { proxyPool.Put((*[32 << 10]byte)(b)) }

// naiveProxy does in Go what the reference document's gateway does: a client for each request, bodies read whole and
// encoded again.
func naiveProxy(upstream string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		target := "http://" + upstream + strings.TrimPrefix(r.URL.Path, "/users")
		req, err := http.NewRequestWithContext(r.Context(), r.Method, target, bytes.NewReader(body))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		req.Header = r.Header.Clone()
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
		res, err := client.Do(req)
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		defer res.Body.Close()
		var doc any
		if err := json.NewDecoder(res.Body).Decode(&doc); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(res.StatusCode)
		_ = json.NewEncoder(w).Encode(doc)
	})
}

// proxy is a contestant at work.
type proxy struct {
	name, addr string
	cmd        *exec.Cmd
}

// startProxy starts a contestant, or says with which line its peer is installed.
func startProxy(b *testing.B, name, upstream string) (p *proxy, missing string) {
	b.Helper()
	dir := b.TempDir()
	addr := freeAddr(b)
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		b.Fatal(err)
	}
	p = &proxy{name: name, addr: addr}
	fill := func(file string) string {
		text, err := os.ReadFile(filepath.Join("testdata", "gateway", file))
		if err != nil {
			b.Fatal(err)
		}
		out := filepath.Join(dir, file)
		filled := strings.NewReplacer("DIR", dir, "UPSTREAM", upstream, "ADDR", addr, "PORT", port).Replace(string(text))
		if err := os.WriteFile(out, []byte(filled), 0o600); err != nil {
			b.Fatal(err)
		}
		return out
	}
	find := func(program string) string {
		for _, path := range []string{program, "../bin/" + program, "/usr/sbin/" + program} {
			if full, err := exec.LookPath(path); err == nil {
				return full
			}
		}
		return ""
	}
	switch name {
	case "nginx":
		program := find("nginx")
		if program == "" {
			return nil, "apt-get install nginx-light"
		}
		p.cmd = exec.Command(program, "-c", fill("nginx.conf"), "-p", dir)
	case "caddy":
		program := find("caddy")
		if program == "" {
			return nil, "GOBIN=$PWD/../bin go install github.com/caddyserver/caddy/v2/cmd/caddy@v2.11.9"
		}
		p.cmd = exec.Command(program, "run", "--adapter", "caddyfile", "--config", fill("Caddyfile"))
	case "fastapi":
		const python = "/usr/bin/python3" // Debian's, which has Debian's packages
		if exec.Command(python, "-c", "import fastapi, httpx, uvicorn").Run() != nil {
			return nil, "apt-get install python3-fastapi python3-uvicorn python3-httpx python3-uvloop python3-httptools"
		}
		p.cmd = exec.Command(python, "-m", "uvicorn", "--app-dir", "testdata/gateway", "--host", host, "--port", port,
			"--no-access-log", "--log-level", "warning", "reference:app")
		p.cmd.Env = append(os.Environ(), "USER_SERVICE_URL=http://"+upstream, "PYTHONDONTWRITEBYTECODE=1")
	default:
		p.cmd = exec.Command(os.Args[0])
		p.cmd.Env = append(os.Environ(), proxyVariable+"="+name, "UPSTREAM="+upstream, "ADDR="+addr)
	}
	p.cmd.Stderr = os.Stderr
	if err := p.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = p.cmd.Process.Kill(); _ = p.cmd.Wait() })
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
			return p, ""
		}
		if time.Now().After(deadline) {
			b.Fatalf("%s does not begin: %v", name, err)
		}
	}
}

func freeAddr(b *testing.B) string {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// cpu is what the process has used so far, in user and kernel mode.
func (p *proxy) cpu(b *testing.B) time.Duration {
	b.Helper()
	text, err := os.ReadFile("/proc/" + strconv.Itoa(p.cmd.Process.Pid) + "/stat")
	if err != nil {
		b.Skip("there is no /proc here: ", err)
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:])) // from the third on
	user, err1 := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	if err := errors.Join(err1, err2); err != nil {
		b.Fatal(err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond // ticks of 100 Hz, as Linux shows them everywhere
}
