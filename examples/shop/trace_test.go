package main

import (
	"compress/gzip"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	coltrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/sillar-go/sillar/internal/testenv"
)

// collector takes spans as an OpenTelemetry collector does, by OTLP over HTTP.
type collector struct {
	mu    sync.Mutex
	spans []seenSpan
}

// seenSpan is a span as it arrived.
type seenSpan struct {
	service, scope, name, kind string
	trace, id, parent          string
}

func (s seenSpan) String() string { return s.service + ": " + s.kind + " " + s.name }

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		body = z
	}
	raw, err := io.ReadAll(body)
	var req coltrace.ExportTraceServiceRequest
	if err == nil {
		err = proto.Unmarshal(raw, &req)
	}
	if err != nil || r.URL.Path != "/v1/traces" {
		http.Error(w, fmt.Sprint(r.URL.Path, err), http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, rs := range req.GetResourceSpans() {
		service := ""
		for _, a := range rs.GetResource().GetAttributes() {
			if a.GetKey() == "service.name" {
				service = a.GetValue().GetStringValue()
			}
		}
		for _, ss := range rs.GetScopeSpans() {
			for _, s := range ss.GetSpans() {
				c.spans = append(c.spans, seenSpan{service, ss.GetScope().GetName(), s.GetName(), kind(s.GetKind()),
					hex.EncodeToString(s.GetTraceId()), hex.EncodeToString(s.GetSpanId()), hex.EncodeToString(s.GetParentSpanId())})
			}
		}
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

func kind(k tracepb.Span_SpanKind) string {
	return strings.ToLower(strings.TrimPrefix(k.String(), "SPAN_KIND_"))
}

// One order is one trace: from the gateway through HTTP, gRPC, databases, the saga, the outbox and RabbitMQ to the
// letter to the customer. Every span but the first has its parent in it. The spans come by OTLP, and none is lost when
// the shop closes.
func TestOneOrderIsOneTrace(t *testing.T) {
	broker := testenv.RabbitMQ(t)
	c := collect(t)
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "60000") // all that counts is what is flushed at the end

	o := &options{host: "127.0.0.1", portOffset: -1, data: t.TempDir(), broker: broker, log: "none", logLevel: "error",
		breaker: time.Second, seed: true}
	h, err := newAllInOne(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	closed := make(chan error, 1)
	go func() { closed <- h.Run(ctx) }()
	placeOrder(t, h)
	stop()
	if err := <-closed; err != nil {
		t.Error(err)
	}

	c.check(t, c.traces("orders: server POST /api/v1/orders")[0], append(slices.Clone(orderEdges),
		"users: client SELECT < users: internal get_user",
		"orders: client INSERT < orders: client TRANSACTION",
		"payments: client TRANSACTION < payments: server POST /api/v1/payments",
		"notifications: client TRANSACTION < notifications: consumer process orders.paid")...)
}

// placeOrder places an order and waits for all that follows from it.
func placeOrder(t *testing.T, h *allInOne) {
	t.Helper()
	token := signIn(t, h.URL(), "ana")
	within := func(what string, done func() bool) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); !done(); time.Sleep(50 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("in vain: ", what)
			}
		}
	}
	within("stock", func() bool {
		_, body := ask(t, t.Context(), token, "GET", h.URL()+"/inventory/api/v1/inventory/prod-lamp", "")
		return body["on_hand"] != nil
	})
	code, order := ask(t, t.Context(), token, "POST", h.URL()+"/orders/api/v1/orders",
		`{"items":[{"product_id":"prod-lamp","quantity":1}],"payment_method":"pm_card_visa"}`)
	if code >= 300 {
		t.Fatalf("the order: %d %v", code, order)
	}
	within("a letter", func() bool {
		_, body := ask(t, t.Context(), token, "GET", h.URL()+"/notifications/api/v1/notifications", "")
		return strings.Contains(fmt.Sprint(body), fmt.Sprint(order["id"]))
	})
}

// orderEdges are what every trace of an order that is paid must have, whatever the databases are.
var orderEdges = []string{
	"gateway: client POST < gateway: server POST /orders",
	"orders: server POST /api/v1/orders < gateway: client POST",
	"orders: client user.v1.UserService/GetUser < orders: server POST /api/v1/orders",
	"users: server user.v1.UserService/GetUser < orders: client user.v1.UserService/GetUser",
	"orders: client HTTP POST < orders: server POST /api/v1/orders",
	"products: server POST /api/v1/products/check < orders: client HTTP POST",
	"inventory: server POST /api/v1/inventory/check < products: client HTTP POST",
	"orders: internal saga place-order < orders: client TRANSACTION", // the one that began it
	"orders: internal do reserve-inventory < orders: internal saga place-order",
	"orders: client HTTP POST < orders: internal do process-payment",
	"payments: server POST /api/v1/payments < orders: client HTTP POST",
	"orders: producer send orders.paid < orders: client TRANSACTION", // the one that holds the outbox row
	"notifications: consumer process orders.paid < orders: producer send orders.paid",
}

// collect starts a collector, to which the programs that this one starts, and this one, send.
func collect(t *testing.T) *collector {
	t.Helper()
	c := &collector{}
	srv := httptest.NewServer(c)
	t.Cleanup(srv.Close)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", srv.URL)
	return c
}

// traces returns the ids of the traces that have a span, in the order in which they came.
func (c *collector) traces(span string) (ids []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spans {
		if s.String() == span {
			ids = append(ids, s.trace)
		}
	}
	return ids
}

// check looks at one trace: one root, a parent for every other span, and the edges that are wanted.
func (c *collector) check(t *testing.T, id string, want ...string) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	trace := slices.DeleteFunc(slices.Clone(c.spans), func(s seenSpan) bool { return s.trace != id })
	byID, roots := map[string]seenSpan{}, 0
	for _, s := range trace {
		byID[s.id] = s
	}
	for _, s := range trace {
		if s.parent == "" {
			roots++
		} else if _, ok := byID[s.parent]; !ok {
			t.Errorf("%s has no parent in the trace", s)
		}
	}
	if roots != 1 {
		t.Errorf("%d roots, want 1", roots)
	}
	edges := map[string]bool{}
	for _, s := range trace {
		edges[s.String()+" < "+byID[s.parent].String()] = true
	}
	for _, want := range want {
		if !edges[want] {
			t.Errorf("the trace has no %s", want)
		}
	}
	if t.Failed() {
		for _, s := range trace {
			t.Logf("%s < %s", s, byID[s.parent])
		}
	}
}
