package integration

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/sillar-go/sillar/gateway"
	"github.com/sillar-go/sillar/observability"
)

// written is a log that tests read while others write.
type written struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (w *written) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.Write(b)
}

func watched(t *testing.T, service string, log io.Writer) *observability.Telemetry {
	t.Helper()
	tel := observability.Must(observability.New(t.Context(), observability.Config{Service: service, LogWriter: log}))
	t.Cleanup(func() { _ = tel.Shutdown(context.Background()) })
	return tel
}

// A service behind the gateway, each under its own telemetry as in the shop: whatever net/http can do goes through all
// of it, over HTTP/1.1 and HTTP/2, and both log each request under one id.
func TestWhatGoesThroughTheWholeStack(t *testing.T) {
	log := &written{}
	file := filepath.Join(t.TempDir(), "file")
	content := strings.Repeat("0123456789", 100_000)
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	service := watched(t, "service", log)
	mux := service.Mux()
	next := make(chan struct{})
	mux.HandleFunc("GET /events", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: 1\n\n")
		_ = http.NewResponseController(w).Flush()
		<-next
		_, _ = io.WriteString(w, "data: 2\n\n")
	})
	mux.HandleFunc("GET /ws", func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.CloseNow()
		for {
			kind, data, err := c.Read(r.Context())
			if err != nil || c.Write(r.Context(), kind, data) != nil {
				return
			}
		}
	})
	mux.HandleFunc("GET /hints", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</a.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusTeapot)
	})
	mux.HandleFunc("POST /talk", func(w http.ResponseWriter, r *http.Request) {
		c := http.NewResponseController(w)
		_ = c.EnableFullDuplex()
		for in := bufio.NewScanner(r.Body); in.Scan(); {
			_, _ = fmt.Fprintln(w, "got", in.Text())
			_ = c.Flush()
		}
	})
	mux.HandleFunc("GET /file", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, file) })
	mux.HandleFunc("GET /panic", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "half")
		_ = http.NewResponseController(w).Flush()
		panic("kaboom")
	})
	up := httptest.NewServer(service.Middleware(mux))
	defer up.Close()

	edge := watched(t, "gateway", log)
	gw := gateway.Must(gateway.New(gateway.Config{Anonymous: true, Logger: slog.New(slog.DiscardHandler),
		Routes: []gateway.Route{{Prefix: "/s", Upstreams: []string{up.URL}, Upgrade: true, Timeout: 5 * time.Second}}}))
	defer gw.CloseIdleConnections()
	for _, version := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(version, func(t *testing.T) {
			srv := httptest.NewUnstartedServer(edge.Middleware(gw))
			srv.EnableHTTP2 = version == "HTTP/2.0"
			srv.StartTLS()
			defer srv.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			url, client := srv.URL+"/s", srv.Client()
			send := func(ctx context.Context, method, path string, body io.Reader) *http.Response {
				t.Helper()
				req, _ := http.NewRequestWithContext(ctx, method, url+path, body)
				req.Header.Set("X-Correlation-ID", "id-"+strings.ReplaceAll(version, "/", "")+strings.ReplaceAll(path, "/", "-"))
				res, err := client.Do(req)
				if err != nil {
					t.Fatalf("%s: %v", path, err)
				}
				if res.Proto != version {
					t.Errorf("%s spoke %s", path, res.Proto)
				}
				return res
			}

			res := send(ctx, "GET", "/events", nil)
			first := make([]byte, 9)
			if _, err := io.ReadFull(res.Body, first); err != nil || string(first) != "data: 1\n\n" {
				t.Errorf("the first event, while the handler runs: %q, %v", first, err)
			}
			next <- struct{}{}
			if rest, err := io.ReadAll(res.Body); err != nil || string(rest) != "data: 2\n\n" {
				t.Errorf("the second event: %q, %v", rest, err)
			}
			_ = res.Body.Close()

			if version == "HTTP/1.1" {
				c, _, err := websocket.Dial(ctx, url+"/ws", &websocket.DialOptions{HTTPClient: client})
				if err != nil {
					t.Fatal(err)
				}
				for i := range 3 {
					if err := c.Write(ctx, websocket.MessageText, fmt.Append(nil, i)); err != nil {
						t.Fatal(err)
					}
					if _, data, err := c.Read(ctx); err != nil || string(data) != fmt.Sprint(i) {
						t.Errorf("echo: %q, %v", data, err)
					}
				}
				_ = c.Close(websocket.StatusNormalClosure, "")
			}

			var hints []string
			res = send(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got1xxResponse: func(code int,
				h textproto.MIMEHeader) error {
				hints = append(hints, fmt.Sprint(code, h.Get("Link")))
				return nil
			}}), "GET", "/hints", nil)
			_ = res.Body.Close()
			if res.StatusCode != http.StatusTeapot || fmt.Sprint(hints) != "[103</a.css>; rel=preload]" ||
				len(res.Header.Values("X-Correlation-ID")) != 1 {
				t.Errorf("%d after %v, %v", res.StatusCode, hints, res.Header)
			}

			talk, say := io.Pipe()
			go func() { _, _ = io.WriteString(say, "0\n") }()
			res = send(ctx, "POST", "/talk", talk)
			in := bufio.NewScanner(res.Body)
			for i := range 3 {
				if !in.Scan() || in.Text() != fmt.Sprint("got ", i) {
					t.Fatalf("line %d: %q, %v", i, in.Text(), in.Err())
				}
				_, _ = fmt.Fprintln(say, i+1)
			}
			_ = say.Close()
			_ = res.Body.Close()

			res = send(ctx, "GET", "/file", nil)
			if body, err := io.ReadAll(res.Body); err != nil || string(body) != content ||
				res.ContentLength != int64(len(content)) {
				t.Errorf("the file: %d bytes of %d, %v", len(body), res.ContentLength, err)
			}
			_ = res.Body.Close()

			res = send(ctx, "GET", "/panic", nil)
			if body, err := io.ReadAll(res.Body); err == nil || string(body) != "half" {
				t.Errorf("an answer that a panic cut is whole: %q", body)
			}
			_ = res.Body.Close()
		})
	}
	up.Close() // the last lines are written when the connections are over
	seen := map[string]string{}
	log.mu.Lock()
	defer log.mu.Unlock()
	for line := range bytes.Lines(log.buf.Bytes()) {
		var l struct {
			Service string `json:"service"`
			ID      string `json:"correlation_id"`
			Status  int    `json:"status"`
		}
		if err := json.Unmarshal(line, &l); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if l.Status != 0 {
			seen[l.ID] += fmt.Sprint(" ", l.Service, l.Status)
		}
	}
	for _, version := range []string{"HTTP1.1", "HTTP2.0"} {
		for path, want := range map[string]string{"events": " service200 gateway200", "hints": " service418 gateway418",
			"talk": " service200 gateway200", "file": " service200 gateway200"} {
			if got := seen["id-"+version+"-"+path]; got != want && got != " gateway"+want[len(want)-3:]+" service"+
				want[len(want)-3:] {
				t.Errorf("%s %s is logged as%s", version, path, got)
			}
		}
	}
}
