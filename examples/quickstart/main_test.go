package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestQuickstartServesAndEnds(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, l, "sqlite::memory:", io.Discard) }()
	url := "http://" + l.Addr().String()
	do := func(method, path, body string, want int) string {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, url+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != want {
			t.Fatalf("%s %s: got %s %s, %v, want %d", method, path, res.Status, text, err, want)
		}
		return string(text)
	}
	do("GET", "/ready", "", 200)
	do("POST", "/products", `{"name":"lamp","price":4900}`, 201)
	do("POST", "/products", `{"name":"chair","price":900}`, 201)
	do("POST", "/products", `{"price":1}`, 422)
	do("POST", "/products", `{"name":"rug","prize":1}`, 422)
	do("GET", "/products?after=nonsense", "", 400)
	if list := do("GET", "/products", "", 200); strings.Index(list, "chair") > strings.Index(list, "lamp") ||
		!strings.Contains(list, "lamp") {
		t.Errorf("the list: %s", list)
	}
	if m := do("GET", "/metrics", "", 200); !strings.Contains(m,
		`http_requests_total{endpoint="/products",method="POST",status="201"} 2`) {
		t.Errorf("metrics: %s", m)
	}
	http.DefaultClient.CloseIdleConnections()
	stop()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the service does not end")
	}
}
