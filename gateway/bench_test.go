package gateway_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"

	"github.com/sillar-go/sillar/gateway"
)

// BenchmarkProxy compares the whole chain with a bare httputil.ReverseProxy.
func BenchmarkProxy(b *testing.B) {
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "hello")
	}))
	defer up.Close()
	target, _ := url.Parse(up.URL)
	tuned := http.DefaultTransport.(*http.Transport).Clone()
	tuned.MaxIdleConnsPerHost = 256
	defer tuned.CloseIdleConnections()
	route := gateway.Route{Prefix: "/a", Upstreams: []string{up.URL}, RateLimit: &gateway.RateLimit{Rate: 1e9}}
	quiet := slog.New(slog.DiscardHandler)
	chain := gateway.Must(gateway.New(gateway.Config{Anonymous: true, Logger: quiet, Routes: []gateway.Route{route}}))
	tokens := gateway.Must(gateway.New(gateway.Config{Auth: auth, Logger: quiet, Routes: []gateway.Route{route}}))
	for _, c := range []struct {
		name string
		h    http.Handler
	}{
		{"bare", &httputil.ReverseProxy{Transport: tuned, Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.SetXForwarded()
		}}},
		{"gateway", chain},
		{"gateway-token", tokens},
	} {
		b.Run(c.name, func(b *testing.B) {
			srv := httptest.NewServer(c.h)
			defer srv.Close()
			client := srv.Client()
			b.ReportAllocs()
			for b.Loop() {
				req, _ := http.NewRequest("GET", srv.URL+"/a/x", nil)
				req.Header.Set("Authorization", "Bearer ana")
				res, err := client.Do(req)
				if err != nil || res.StatusCode != 200 {
					b.Fatal(res, err)
				}
				_, _ = io.Copy(io.Discard, res.Body)
				res.Body.Close()
			}
		})
	}
	chain.CloseIdleConnections()
	tokens.CloseIdleConnections()
}
