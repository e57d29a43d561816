package health_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/sillar-go/sillar/observability/health"
)

func Example() {
	h := health.Must(health.New(health.Config{Service: "orders"}))
	h.Add("database", func(context.Context) error { return nil })
	h.Add("payments", func(context.Context) error { return errors.New("the breaker is open") }, health.Degraded())
	mux := http.NewServeMux()
	h.Register(mux)

	rec := httptest.NewRecorder()
	mux.ServeHTTP(rec, httptest.NewRequest("GET", "/ready?verbose", nil))
	fmt.Println(rec.Code, rec.Body)
	// Output: 200 {"status":"degraded","service":"orders","checks":[{"name":"database","status":"up"},{"name":"payments","status":"degraded"}]}
}

func ExampleRun() {
	ctx, stop := context.WithCancel(context.Background())
	h := health.Must(health.New(health.Config{}))
	stop() // a program of one service leaves this to SIGTERM
	err := health.Run(ctx, health.Drain{Health: h, NoSignals: true, Grace: 20 * time.Second,
		Logger: slog.New(slog.DiscardHandler)},
		health.Phase{Name: "http", Timeout: 10 * time.Second, Stop: func(context.Context) error {
			fmt.Println("server stopped")
			return nil
		}},
		health.Phase{Name: "telemetry", Stop: func(context.Context) error { fmt.Println("telemetry flushed"); return nil }},
	)
	fmt.Println(h.Draining(), err)
	// Output:
	// server stopped
	// telemetry flushed
	// true <nil>
}
