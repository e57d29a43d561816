package otlp_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sillar-go/sillar/observability"
	"github.com/sillar-go/sillar/observability/otlp"
)

// What clients send is often no UTF-8. One such span costs no others: collectors refuse, and exporters fail to encode,
// all spans of a batch together.
func TestSpansOfRequestsThatAreNotUTF8Arrive(t *testing.T) {
	c := &receiver{spans: map[string]string{}}
	srv := httptest.NewServer(c)
	defer srv.Close()
	clearEnv(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", srv.URL)
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
	e, err := otlp.FromEnv(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tel := observability.Must(observability.New(t.Context(), observability.Config{Service: "orders", LogWriter: discard{},
		SpanExporters: e}))
	mux := tel.Mux()
	mux.HandleFunc("GET /orders/{id}", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /panics/{id}", func(_ http.ResponseWriter, r *http.Request) { panic(r.URL.Path) })
	for _, path := range []string{"/orders/%ff", "/orders/" + strings.Repeat("%C3%A4", 400), "/panics/%ff"} {
		r := httptest.NewRequest("GET", path, nil)
		r.Host = "x\xff"
		tel.Middleware(mux).ServeHTTP(httptest.NewRecorder(), r)
	}
	if err := tel.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.spans["GET /orders/{id}"] != "orders" || c.spans["GET /panics/{id}"] != "orders" {
		t.Errorf("arrived %v", c.spans)
	}
}
