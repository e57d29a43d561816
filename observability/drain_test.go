package observability_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/sillar-go/sillar/internal/killtest"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/memory"
	"github.com/sillar-go/sillar/observability"
	"github.com/sillar-go/sillar/observability/health"
)

func init() {
	killtest.Register("service", runService)
	killtest.Register("stuck", func([]string) error {
		fmt.Println("pid", os.Getpid())
		return health.Run(context.Background(), health.Drain{}, health.Phase{Name: "never", Timeout: 20 * time.Second,
			Stop: func(ctx context.Context) error { fmt.Println("stuck"); <-ctx.Done(); return nil }})
	})
}

// printing is an exporter that writes a line for each span.
type printing struct{}

func (printing) ExportSpans(_ context.Context, spans []sdktrace.ReadOnlySpan) error {
	for _, s := range spans {
		fmt.Println("span", s.Name())
	}
	return nil
}
func (printing) Shutdown(context.Context) error { return nil }

// runService is a service as its users write it: requests, a consumer, telemetry, and the order in which they end.
func runService([]string) error {
	// Spans are exported by the end of the service, and not before: neither by time nor because there are many.
	_ = os.Setenv("OTEL_BSP_SCHEDULE_DELAY", "600000")
	_ = os.Setenv("OTEL_BSP_MAX_QUEUE_SIZE", "65536") // a batch larger than this is not accepted
	_ = os.Setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "65536")
	ctx := context.Background()
	tel := observability.Must(observability.New(ctx, observability.Config{Service: "orders", LogWriter: io.Discard,
		SpanExporters: []sdktrace.SpanExporter{printing{}}, QueueSize: 1 << 16}))
	broker := memory.Must(memory.New(memory.Config{Source: "orders", Logger: tel.Logger}))
	router, err := messaging.NewRouter(broker, messaging.RouterConfig{Logger: tel.Logger,
		TracerProvider: tel.TracerProvider})
	if err != nil {
		return err
	}
	var begun, finished atomic.Int64
	messaging.Handle(router.Group("slow", messaging.GroupConfig{Concurrency: 4}), "order.placed",
		func(context.Context, messaging.Message[int]) error {
			begun.Add(1)
			time.Sleep(30 * time.Millisecond)
			finished.Add(1)
			return nil
		})
	h := health.Must(health.New(health.Config{}))
	mux := tel.Mux()
	h.Register(mux)
	mux.HandleFunc("GET /work", func(w http.ResponseWriter, r *http.Request) {
		takes, _ := time.ParseDuration(r.URL.Query().Get("for"))
		time.Sleep(takes)
		if err := broker.Publish(r.Context(), "order.placed", 1); err != nil {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: tel.Middleware(mux), ReadHeaderTimeout: time.Second}
	go func() { _ = server.Serve(l) }()
	consume, stop := context.WithCancel(ctx)
	consumed := make(chan error, 1)
	go func() { consumed <- router.Run(consume) }()
	step := func(name string, f func(context.Context) error) health.Phase {
		return health.Phase{Name: name, Stop: func(ctx context.Context) error {
			defer fmt.Println("ended", name)
			return f(ctx)
		}}
	}
	fmt.Println("pid", os.Getpid())
	fmt.Println("address", l.Addr())
	err = health.Run(ctx, health.Drain{Health: h, Delay: 400 * time.Millisecond, Logger: tel.Logger},
		step("requests", server.Shutdown),
		step("consumers", func(context.Context) error { stop(); return <-consumed }),
		step("telemetry", tel.Shutdown))
	if begun.Load() != finished.Load() {
		err = errors.Join(err, fmt.Errorf("%d handlers began, %d finished", begun.Load(), finished.Load()))
	}
	return err
}

func pid(t *testing.T, p *killtest.Process) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimPrefix(p.Line(t, "pid "), "pid "))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A service gets SIGTERM while clients send requests: it is unready at once and serves on, no request fails, handlers
// finish, and the spans of all that come out last.
func TestDrainUnderLoad(t *testing.T) {
	p := killtest.Start(t, "service")
	id, url := pid(t, p), "http://"+strings.TrimPrefix(p.Line(t, "address "), "address ")
	tr := &http.Transport{MaxIdleConnsPerHost: 64}
	defer tr.CloseIdleConnections()
	client := &http.Client{Transport: tr, Timeout: 10 * time.Second}
	get := func(path string) (int, error) {
		res, err := client.Get(url + path)
		if err != nil {
			return 0, err
		}
		_, _ = io.Copy(io.Discard, res.Body)
		return res.StatusCode, res.Body.Close()
	}
	var down, late atomic.Bool // what a balancer knows; whether the service has served since it said that it goes down
	var answered atomic.Int64
	var wg sync.WaitGroup
	work := func(path string) {
		if code, err := get(path); err != nil || code != http.StatusOK {
			t.Errorf("a request failed: %d, %v", code, err)
			return
		}
		answered.Add(1)
	}
	for range 8 {
		wg.Go(func() {
			for !down.Load() {
				work("/work?for=5ms")
			}
			work("/work") // a balancer is late
			late.Store(true)
		})
	}
	for end := time.Now().Add(30 * time.Second); answered.Load() < 100 && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	wg.Go(func() { work("/work?for=1500ms") }) // is under way when the listener closes
	time.Sleep(50 * time.Millisecond)
	signalled := time.Now()
	if err := syscall.Kill(id, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for !down.Load() {
		code, err := get("/ready")
		if err != nil {
			t.Fatalf("before it was unready it did not answer: %v", err)
		}
		down.Store(code == http.StatusServiceUnavailable)
		if time.Since(signalled) > 10*time.Second {
			t.Fatal("it is not unready after 10 s")
		}
	}
	if code, err := get("/health"); err != nil || code != http.StatusOK {
		t.Errorf("alive while it drains: %d, %v", code, err)
	}
	wg.Wait()
	if state := p.Wait(t); state != "exit: <nil>" {
		t.Errorf("%s\n%.2000s", state, p.Output())
	}
	if !late.Load() || answered.Load() < 100 {
		t.Errorf("%d requests: too few to say anything", answered.Load())
	}
	var order []string
	spans := map[string]int64{}
	for l := range strings.Lines(p.Output()) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(l), "span "); ok {
			if len(order) != 2 {
				t.Fatalf("span %s came after %v", name, order)
			}
			spans[name]++
		} else if name, ok := strings.CutPrefix(strings.TrimSpace(l), "ended "); ok {
			order = append(order, name)
		}
	}
	if fmt.Sprint(order) != "[requests consumers telemetry]" {
		t.Errorf("ended in the order %v", order)
	}
	if spans["GET /work"] != answered.Load() || spans["process order.placed"] == 0 {
		t.Errorf("%d requests were answered, spans: %v", answered.Load(), spans)
	}
}

// Who signals twice does not wait for phases that are stuck.
func TestSecondSignalEndsTheProcess(t *testing.T) {
	p := killtest.Start(t, "stuck")
	id := pid(t, p)
	time.Sleep(200 * time.Millisecond) // until it listens: a signal that comes too early ends it
	if err := syscall.Kill(id, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.Line(t, "stuck")
	begun := time.Now()
	if err := syscall.Kill(id, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if state := p.Wait(t); state != "exit: exit status 1" || time.Since(begun) > 2*time.Second {
		t.Errorf("%s after %s", state, time.Since(begun))
	}
}
