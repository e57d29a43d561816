package observability_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/sillar-go/sillar/observability"
)

func Example() {
	tel, err := observability.New(context.Background(), observability.Config{Service: "orders", LogWriter: io.Discard})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer tel.Shutdown(context.Background())
	mux := tel.Mux()
	mux.HandleFunc("GET /orders/{id}", func(w http.ResponseWriter, r *http.Request) {
		order, err := observability.TrackDependency(r.Context(), "mongodb", "get_order",
			func(context.Context) (string, error) {
				return "order " + r.PathValue("id"), nil
			})
		if err != nil {
			http.Error(w, "no", http.StatusInternalServerError)
			return
		}
		tel.Logger.InfoContext(r.Context(), "found") // with the correlation id
		fmt.Fprint(w, order)
	})
	mux.Handle("GET /metrics", tel.MetricsHandler())
	handler := tel.Middleware(mux)

	rec := httptest.NewRecorder()
	handler.ServeHTTP(rec, httptest.NewRequest("GET", "/orders/7", nil))
	fmt.Println(rec.Body)
	rec = httptest.NewRecorder()
	handler.ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	for line := range strings.Lines(rec.Body.String()) {
		if strings.HasPrefix(line, "http_requests_total") {
			fmt.Print(line)
		}
	}
	// Output:
	// order 7
	// http_requests_total{endpoint="/orders/{id}",method="GET",status="200"} 1
}

func ExampleSecret() {
	password := observability.NewSecret("hunter2")
	fmt.Println(password, len(password.Reveal()))
	// Output: [REDACTED] 7
}
