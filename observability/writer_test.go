package observability_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// The optional interfaces that an inner writer may have.
type bare struct{ http.ResponseWriter }

type fl struct{}

type hj struct{}

type rf struct{}

func (fl) Flush() {}

func (hj) Hijack() (net.Conn, *bufio.ReadWriter, error) { return nil, nil, errors.ErrUnsupported }

func (rf) ReadFrom(r io.Reader) (int64, error) { return io.Copy(io.Discard, r) }

func TestWriterKeepsExactlyTheInnerInterfaces(t *testing.T) {
	tel, _ := newTel(t, nil)
	rec := bare{httptest.NewRecorder()}
	for i, w := range []http.ResponseWriter{
		rec,
		struct {
			bare
			fl
		}{rec, fl{}},
		struct {
			bare
			hj
		}{rec, hj{}},
		struct {
			bare
			fl
			hj
		}{rec, fl{}, hj{}},
		struct {
			bare
			rf
		}{rec, rf{}},
		struct {
			bare
			fl
			rf
		}{rec, fl{}, rf{}},
		struct {
			bare
			hj
			rf
		}{rec, hj{}, rf{}},
		struct {
			bare
			fl
			hj
			rf
		}{rec, fl{}, hj{}, rf{}},
	} {
		tel.Middleware(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, f := w.(http.Flusher)
			_, h := w.(http.Hijacker)
			_, r := w.(io.ReaderFrom)
			if f != (i&1 != 0) || h != (i&2 != 0) || r != (i&4 != 0) {
				t.Errorf("%d: Flusher %v, Hijacker %v, ReaderFrom %v", i, f, h, r)
			}
			if err := http.NewResponseController(w).Flush(); (err == nil) != f {
				t.Errorf("%d: the controller flushes: %v", i, err)
			}
		})).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	}
}

func TestEarlyHintsHijackFullDuplex(t *testing.T) {
	tel, _ := newTel(t, nil)
	mux := tel.Mux()
	mux.HandleFunc("/hints", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusTeapot)
	})
	mux.HandleFunc("/duplex", func(w http.ResponseWriter, _ *http.Request) {
		if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
			t.Errorf("full duplex: %v", err)
		}
		if n, err := io.Copy(w, strings.NewReader("12345")); n != 5 || err != nil {
			t.Errorf("copy: %d, %v", n, err)
		}
	})
	mux.HandleFunc("/up", func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Errorf("hijack: %v", err)
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
		_ = c.Close()
	})
	srv := httptest.NewServer(tel.Middleware(mux))
	defer srv.Close()
	for path, status := range map[string]string{"/hints": "418", "/duplex": "200", "/up": "101"} {
		res, err := http.Get(srv.URL + path)
		if err != nil {
			t.Fatal(path, err)
		}
		_ = res.Body.Close()
		v := ""
		// the client has a hijacked answer before the handler returns
		for end := time.Now().Add(30 * time.Second); v == "" && time.Now().Before(end); time.Sleep(time.Millisecond) {
			v = metric(t, tel, `http_requests_total{endpoint="`+path+`",method="GET",status="`+status+`"}`)
		}
		if v != "1" {
			t.Errorf("%s: %q", path, v)
		}
	}
}
