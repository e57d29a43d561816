package observability_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sillar-go/sillar/observability"
)

// onTheWire runs a test with a real server and client, over HTTP/1.1 and HTTP/2, through a stack of middleware.
func onTheWire(t *testing.T, mux http.Handler, tel *observability.Telemetry, test func(t *testing.T, url string,
	client *http.Client)) {
	t.Helper()
	for _, version := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(version, func(t *testing.T) {
			srv := httptest.NewUnstartedServer(tel.Middleware(tel.Middleware(mux)))
			srv.EnableHTTP2 = version == "HTTP/2.0"
			srv.StartTLS()
			defer srv.Close()
			test(t, srv.URL, srv.Client())
			res, err := srv.Client().Get(srv.URL + "/version")
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if res.Proto != version {
				t.Errorf("spoke %s", res.Proto)
			}
		})
	}
}

func TestInformationalAnswersArrive(t *testing.T) {
	tel, _ := newTel(t, nil)
	onTheWire(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</a.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, "tea")
	}), tel, func(t *testing.T, url string, client *http.Client) {
		var hints []string
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int,
			h textproto.MIMEHeader) error {
			hints = append(hints, fmt.Sprint(code, h.Get("Link")))
			return nil
		}})
		req, _ := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if body, _ := io.ReadAll(res.Body); res.StatusCode != http.StatusTeapot || string(body) != "tea" ||
			fmt.Sprint(hints) != "[103</a.css>; rel=preload]" {
			t.Errorf("%d %s after %v", res.StatusCode, body, hints)
		}
	})
}

// A handler answers a line at a time while the client is still writing.
func TestFullDuplex(t *testing.T) {
	tel, _ := newTel(t, nil)
	onTheWire(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := http.NewResponseController(w)
		if err := c.EnableFullDuplex(); err != nil && r.ProtoMajor == 1 {
			t.Errorf("full duplex: %v", err)
		}
		for in := bufio.NewScanner(r.Body); in.Scan(); {
			_, _ = fmt.Fprintln(w, "got", in.Text())
			_ = c.Flush()
		}
	}), tel, func(t *testing.T, url string, client *http.Client) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		r, w := io.Pipe()
		defer r.Close()
		go func() { _, _ = io.WriteString(w, "1\n") }()
		req, _ := http.NewRequestWithContext(ctx, http.MethodPost, url, r)
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		in := bufio.NewScanner(res.Body)
		for i := 1; i < 4; i++ {
			if !in.Scan() || in.Text() != fmt.Sprint("got ", i) {
				t.Fatalf("line %d: %q, %v", i, in.Text(), in.Err())
			}
			_, _ = fmt.Fprintln(w, i+1)
		}
		_ = w.Close()
	})
}

// Panics before the headers, after them and on purpose look to a client of either protocol as they must, and a file
// goes through whole.
func TestPanicsAndFilesOnTheWire(t *testing.T) {
	tel, _ := newTel(t, nil)
	file := filepath.Join(t.TempDir(), "file.txt")
	content := strings.Repeat("0123456789", 50_000)
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	mux := tel.Mux()
	mux.HandleFunc("/before", func(http.ResponseWriter, *http.Request) { panic("kaboom") })
	mux.HandleFunc("/after", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "half")
		_ = http.NewResponseController(w).Flush()
		panic("kaboom")
	})
	mux.HandleFunc("/abort", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	mux.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, file) })
	onTheWire(t, mux, tel, func(t *testing.T, url string, client *http.Client) {
		for path, want := range map[string]string{"/before": "500 whole", "/after": "200 cut", "/abort": "none",
			"/file": "200 whole"} {
			got := "none"
			res, err := client.Get(url + path)
			if err == nil {
				body, err := io.ReadAll(res.Body)
				_ = res.Body.Close()
				got = fmt.Sprint(res.StatusCode, " whole")
				if err != nil {
					got = fmt.Sprint(res.StatusCode, " cut")
				}
				if path == "/file" && string(body) != content {
					t.Errorf("the file came with %d bytes", len(body))
				}
				if strings.Contains(string(body), "kaboom") {
					t.Errorf("%s tells the client: %s", path, body)
				}
			}
			if got != want {
				t.Errorf("%s: %s, want %s", path, got, want)
			}
		}
	})
	if v := metric(t, tel, `http_requests_in_progress{method="GET"}`); v != "0" {
		t.Errorf("in progress: %s", v)
	}
}
