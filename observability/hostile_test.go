package observability_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"mime"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"pgregory.net/rapid"

	"github.com/sillar-go/sillar/observability"
)

// What clients send beside the path stands in no log line and no span, whatever becomes of the request, and a Secret
// does not leave by a span or a panic either.
func TestSecretsOfRequestsStayInside(t *testing.T) {
	const hush = "hunter2-hush"
	spans := tracetest.NewInMemoryExporter()
	tel, log := newTel(t, func(c *observability.Config) { c.SpanExporters = []sdktrace.SpanExporter{keep{spans}} })
	s := observability.NewSecret(hush)
	mux := tel.Mux()
	mux.HandleFunc("POST /ok", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("POST /fails", func(w http.ResponseWriter, r *http.Request) {
		_, _ = observability.Trace(r.Context(), "query", func(context.Context) (int, error) {
			return 0, fmt.Errorf("with %v and %+v", s, struct{ S *observability.Secret[string] }{&s})
		}, attribute.String("password", fmt.Sprint(s)), attribute.Stringer("again", s))
		w.WriteHeader(http.StatusInternalServerError)
	})
	mux.HandleFunc("POST /panics", func(http.ResponseWriter, *http.Request) { panic(s) })
	h := tel.Middleware(mux)
	for _, path := range []string{"/ok", "/fails", "/panics", "/none"} {
		r := httptest.NewRequest("POST", path+"?token="+hush, strings.NewReader(hush))
		for _, name := range []string{"Authorization", "Cookie", "X-Api-Key", "Referer", "User-Agent"} {
			r.Header.Set(name, "Bearer "+hush)
		}
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		if strings.Contains(rec.Body.String(), hush) {
			t.Errorf("%s answers it", path)
		}
	}
	if err := tel.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%+v", spans.GetSpans()); len(spans.GetSpans()) != 5 || strings.Contains(got, hush) {
		t.Errorf("%d spans: %s", len(spans.GetSpans()), got)
	}
	if len(log.all(t)) != 4 || strings.Contains(log.String(), hush) {
		t.Errorf("log: %s", log)
	}
}

// Whatever With and WithGroup did, in whatever order and by whatever names, a line is one JSON object whose fixed
// fields stand at its root, once, with the context's ids.
func TestIDsInEveryOrder(t *testing.T) {
	names := []string{"a", "level", "msg", "message", "trace_id", "span_id", "correlation_id", "service", "timestamp",
		"source", "", "é\n\"", "time"}
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.SampledFrom(names)
		var buf bytes.Buffer
		log := slog.New(observability.NewLogHandler(&buf, observability.LogConfig{Service: "orders"}))
		for range rapid.IntRange(0, 6).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "group") {
				log = log.WithGroup(name.Draw(t, "name"))
			} else {
				log = log.With(name.Draw(t, "name"), "evil", slog.Group(name.Draw(t, "inner"), name.Draw(t, "key"), "evil"))
			}
		}
		log.InfoContext(traced(), "hello", name.Draw(t, "name"), "evil", slog.Group(name.Draw(t, "inner"),
			name.Draw(t, "key"), "evil"))
		dec := json.NewDecoder(bytes.NewReader(buf.Bytes()))
		if _, err := dec.Token(); err != nil {
			t.Fatal(err)
		}
		seen := map[string]int{}
		root := map[string]string{}
		for dec.More() {
			k, err := dec.Token()
			if err != nil {
				t.Fatalf("%v: %s", err, buf.String())
			}
			var v json.RawMessage
			if err := dec.Decode(&v); err != nil {
				t.Fatalf("%v: %s", err, buf.String())
			}
			seen[k.(string)]++
			root[k.(string)] = string(v)
		}
		if _, err := dec.Token(); err != nil || strings.Count(buf.String(), "\n") != 1 {
			t.Fatalf("not one object on one line: %v: %s", err, buf.String())
		}
		for k, v := range map[string]string{"level": `"INFO"`, "message": `"hello"`, "service": `"orders"`,
			"correlation_id": `"c-1"`,
			"trace_id":       `"01000000000000000000000000000000"`, "span_id": `"0200000000000000"`,
			"timestamp": root["timestamp"], "source": root["source"]} {
			if seen[k] != 1 || root[k] != v || v == `"evil"` {
				t.Fatalf("%s is %s, %d times: %s", k, root[k], seen[k], buf.String())
			}
		}
		if seen["msg"]+seen["time"] != 0 {
			t.Fatalf("a second name for a fixed field: %s", buf.String())
		}
	})
}

// A stranger's baggage ends at the public edge, and nowhere else.
func TestBaggageEndsAtTheEdge(t *testing.T) {
	for _, edge := range []bool{true, false} {
		tel, _ := newTel(t, func(c *observability.Config) {
			c.PublicEdge = edge
			c.Propagator = propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})
		})
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Baggage", "role=admin")
		r.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
		tel.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if n := baggage.FromContext(r.Context()).Len(); (n == 0) != edge {
				t.Errorf("edge %v: %d baggage members", edge, n)
			}
			out := http.Header{}
			tel.Propagator.Inject(r.Context(), propagation.HeaderCarrier(out))
			if (out.Get("Traceparent") == "") != edge { // without tracing a known neighbour's trace is passed on
				t.Errorf("edge %v: passed on %v", edge, out)
			}
		})).ServeHTTP(httptest.NewRecorder(), r)
	}
}

// What OpenTelemetry has to say goes to the log, and does not fill it.
func TestErrorsOfTheSDKAreLoggedOnce(t *testing.T) {
	tel, log := newTel(t, nil)
	tel.InstallGlobals()
	for i := range 100 {
		otel.Handle(fmt.Errorf("boom %d", i))
	}
	if all := log.all(t); len(all) != 1 || all[0]["level"] != "WARN" || all[0]["error"] != "boom 0" {
		t.Errorf("log: %s", log)
	}
}

// TestPushKeepsToTheAPIOfPushgateway checks Push against the API that Pushgateway documents: PUT /metrics/job/NAME
// replaces the metrics of the job, the name may be base64, and metrics have no job or instance of their own.
func TestPushKeepsToTheAPIOfPushgateway(t *testing.T) {
	var families map[string]*dto.MetricFamily
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPut || r.URL.Path != "/metrics/job@base64/bmlnaHRseS9qb2I" &&
			r.URL.Path != "/metrics/job@base64/bmlnaHRseS9qb2I=" {
			http.Error(w, "no such group", http.StatusBadRequest)
			t.Errorf("%s %s", r.Method, r.URL.Path)
			return
		}
		families = map[string]*dto.MetricFamily{}
		dec := expfmt.NewDecoder(r.Body, expfmt.ResponseFormat(r.Header))
		for {
			var f dto.MetricFamily
			if err := dec.Decode(&f); err != nil {
				break
			}
			families[f.GetName()] = &f
		}
		if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind == "" {
			t.Errorf("content type %q", r.Header.Get("Content-Type"))
		}
	}))
	defer srv.Close()
	tel, _ := newTel(t, func(c *observability.Config) { c.Service = "nightly/job" })
	_, err := observability.TrackOperation(tel.With(t.Context()), "close_books", func(context.Context) (int, error) {
		return 0, errors.New("no")
	})
	if err == nil {
		t.Error("the error is gone")
	}
	if err := tel.Push(t.Context(), srv.URL); err != nil {
		t.Fatal(err)
	}
	f := families["business_operation_duration_seconds"]
	if f == nil || len(f.GetMetric()) != 1 || f.GetMetric()[0].GetHistogram().GetSampleCount() != 1 {
		t.Fatalf("pushed %v", families)
	}
	for _, l := range f.GetMetric()[0].GetLabel() {
		if l.GetName() == "job" || l.GetName() == "instance" {
			t.Errorf("a metric has the label %s, which Pushgateway refuses", l.GetName())
		}
	}
	dead, cancel := context.WithCancel(t.Context())
	cancel()
	if err := tel.Push(dead, srv.URL); !errors.Is(err, context.Canceled) {
		t.Errorf("a push whose context has ended: %v", err)
	}
}
