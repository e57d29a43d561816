package observability_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/sillar-go/sillar/observability"
)

func TestWebSocketAndServerSentEvents(t *testing.T) {
	tel, _ := newTel(t, nil)
	release := make(chan struct{})
	mux := tel.Mux()
	mux.HandleFunc("GET /ws", func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		kind, data, err := c.Read(r.Context())
		if err == nil {
			err = c.Write(r.Context(), kind, data)
		}
		if err != nil {
			t.Error(err)
		}
		_ = c.Close(websocket.StatusNormalClosure, "")
	})
	mux.HandleFunc("GET /events", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "data: 1\n\n")
		w.(http.Flusher).Flush()
		<-release
	})
	srv := httptest.NewServer(tel.Middleware(mux))
	defer srv.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	c, _, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(srv.URL, "http")+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Write(ctx, websocket.MessageText, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, data, err := c.Read(ctx); err != nil || string(data) != "hello" {
		t.Errorf("echo: %q, %v", data, err)
	}
	_ = c.CloseNow()

	res, err := http.Get(srv.URL + "/events")
	if err != nil {
		t.Fatal(err)
	}
	first := make([]byte, 9)
	if _, err := io.ReadFull(res.Body, first); err != nil || string(first) != "data: 1\n\n" {
		t.Errorf("the first event, while the handler runs: %q, %v", first, err)
	}
	close(release)
	_ = res.Body.Close()
}

func TestExemplarsLinkToTraces(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	tel, _ := newTel(t, func(c *observability.Config) { c.SpanExporters = []sdktrace.SpanExporter{keep{spans}} })
	tel.Middleware(http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	r := httptest.NewRequest("GET", "/metrics", nil)
	r.Header.Set("Accept", "application/openmetrics-text")
	rec := httptest.NewRecorder()
	tel.MetricsHandler().ServeHTTP(rec, r)
	_ = tel.Shutdown(t.Context())
	if got := spans.GetSpans(); len(got) != 1 || !strings.Contains(rec.Body.String(),
		`trace_id="`+got[0].SpanContext.TraceID().String()+`"`) {
		t.Errorf("no exemplar of %+v", got)
	}
}

func TestPushSendsMetrics(t *testing.T) {
	var path string
	var size int
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		path, size = r.URL.Path, len(b)
	}))
	defer srv.Close()
	tel, _ := newTel(t, nil)
	if err := tel.Push(t.Context(), srv.URL); err != nil || path != "/metrics/job/orders" || size == 0 {
		t.Errorf("%q, %d bytes, %v", path, size, err)
	}
	srv.Close()
	if err := tel.Push(t.Context(), srv.URL); err == nil {
		t.Error("a dead gateway is no error")
	}
}

func TestQuietPathsAndNesting(t *testing.T) {
	tel, log := newTel(t, nil)
	code := 200
	var inner string
	h := tel.Middleware(tel.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		inner = observability.CorrelationID(r.Context())
		w.WriteHeader(code)
	})))
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest("GET", "/ready", nil))
	if rec.Header().Get("X-Correlation-ID") != inner || len(inner) != 36 {
		t.Errorf("answered %q, inside %q", rec.Header().Get("X-Correlation-ID"), inner)
	}
	if len(log.all(t)) != 0 {
		t.Errorf("a good probe is logged: %s", log)
	}
	code = 503
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/ready", nil))
	if all := log.all(t); len(all) != 1 || all[0]["level"] != "WARN" {
		t.Errorf("a refused probe: %s", log)
	}
}

func TestInstallGlobals(t *testing.T) {
	tel, log := newTel(t, nil)
	tel.InstallGlobals()
	_, _ = observability.TrackOperation(t.Context(), "global", func(context.Context) (int, error) { return 0, nil })
	if v := metric(t, tel, `business_operation_duration_seconds_count{operation="global"}`); v != "1" {
		t.Errorf("the global Telemetry counts %q", v)
	}
	if observability.FromContext(t.Context()) != tel {
		t.Error("not the global one")
	}
	_ = log
	other, _ := newTel(t, nil)
	if observability.FromContext(other.With(t.Context())) != other {
		t.Error("the context's own goes first")
	}
}
