package service_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sillar-go/sillar/observability/health"
	"github.com/sillar-go/sillar/observability/service"
)

var quiet = slog.New(slog.DiscardHandler)

// log notes what happens in which order.
type log struct {
	mu    sync.Mutex
	lines []string
}

func (l *log) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
}

func TestGoesDownInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l log
		s := service.Must(service.New(service.Config{DrainDelay: 5 * time.Second, NoSignals: true, Logger: quiet}))
		s.Close("telemetry", func(context.Context) error { l.add("telemetry"); return nil })
		s.Close("database", func(context.Context) error { l.add("database"); return errors.New("database: busy") })
		stop := make(chan struct{})
		s.Serve("server", func() error { <-stop; return http.ErrServerClosed }, func(context.Context) error {
			l.add(fmt.Sprint("server, draining ", s.Health().Draining()))
			close(stop)
			return nil
		})
		s.Go("relay", func(ctx context.Context) error { <-ctx.Done(); l.add("relay"); return nil })
		ctx, end := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		synctest.Wait()
		end()
		begin := time.Now()
		if err := <-done; err == nil || !strings.Contains(err.Error(), "database: busy") {
			t.Errorf("Run: %v, want what a phase said", err)
		}
		if took := time.Since(begin); took != 5*time.Second {
			t.Errorf("it took %v, want DrainDelay", took)
		}
		want := []string{"server, draining true", "relay", "database", "telemetry"}
		if !slices.Equal(l.lines, want) {
			t.Errorf("%q, want %q", l.lines, want)
		}
	})
}

func TestWhatEndsEarlyEndsTheService(t *testing.T) {
	boom := errors.New("boom")
	for name, c := range map[string]struct {
		register func(s *service.Service)
		want     error
	}{
		"a loop that fails": {func(s *service.Service) {
			s.Go("x", func(context.Context) error { return boom })
		}, boom},
		"a loop that ends": {func(s *service.Service) {
			s.Go("x", func(context.Context) error { return nil })
		}, service.ErrEnded},
		"a loop that panics": {func(s *service.Service) {
			s.Go("x", func(context.Context) error { panic("x") })
		}, service.ErrPanic},
		"a server that fails": {func(s *service.Service) { s.Serve("x", func() error { return boom }, none) }, boom},
		"a server that just ends": {func(s *service.Service) { s.Serve("x", func() error { return nil }, none) },
			service.ErrEnded},
		"a loop that fails at end": {func(s *service.Service) {
			s.Go("x", func(ctx context.Context) error { <-ctx.Done(); return boom })
		}, boom},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := service.Must(service.New(service.Config{Name: "orders", NoSignals: true, Logger: quiet}))
				closed := false
				s.Close("database", func(context.Context) error { closed = true; return nil })
				s.Go("other", func(ctx context.Context) error { <-ctx.Done(); return nil })
				c.register(s)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				err := s.Run(ctx)
				if !errors.Is(err, c.want) || !strings.Contains(err.Error(), "orders: x") || !closed {
					t.Errorf("Run: %v, closed %v; want %v, named, and all closed", err, closed, c.want)
				}
			})
		})
	}
}

func none(context.Context) error { return nil }

func TestLoopsThatDoNotEndAreNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := service.Must(service.New(service.Config{LoopTimeout: 3 * time.Second, NoSignals: true, Logger: quiet}))
		free := make(chan struct{})
		s.Go("deaf", func(context.Context) error { <-free; return nil })
		ctx, end := context.WithCancel(t.Context())
		end()
		begin := time.Now()
		if err := s.Run(ctx); err == nil || time.Since(begin) != 3*time.Second {
			t.Errorf("Run: %v after %v", err, time.Since(begin))
		}
		close(free)
	})
}

func TestAnswersCloseConnectionsWhileDraining(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := health.Must(health.New(health.Config{}))
	s := service.Must(service.New(service.Config{Health: h, NoSignals: true, Logger: quiet}))
	s.HTTP(l, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "hello")
	})})
	ctx, end := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	get := func() *http.Response {
		t.Helper()
		res, err := http.Get("http://" + l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		return res
	}
	if res := get(); res.Close {
		t.Error("an answer before the drain closes its connection")
	}
	h.Drain()
	if res := get(); !res.Close {
		t.Error("an answer of a draining service keeps its connection")
	}
	end()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// fakeGRPC is a gRPC server with a stream that does not end.
type fakeGRPC struct{ graceful, stopped chan struct{} }

func (f fakeGRPC) Serve(net.Listener) error { <-f.stopped; return nil }
func (f fakeGRPC) GracefulStop()            { close(f.graceful); <-f.stopped }
func (f fakeGRPC) Stop()                    { close(f.stopped) }

func TestStreamsOfGRPCAreCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeGRPC{make(chan struct{}), make(chan struct{})}
		s := service.Must(service.New(service.Config{RequestTimeout: 2 * time.Second, NoSignals: true, Logger: quiet}))
		s.GRPC(addr{}, f)
		ctx, end := context.WithCancel(t.Context())
		end()
		begin := time.Now()
		if err := s.Run(ctx); err == nil || time.Since(begin) != 2*time.Second {
			t.Errorf("Run: %v after %v", err, time.Since(begin))
		}
		<-f.graceful
	})
}

type addr struct{ net.Listener }

func (addr) Addr() net.Addr { return &net.TCPAddr{} }

func Example() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	s := service.Must(service.New(service.Config{Name: "hello", Logger: quiet}))
	s.Close("database", func(context.Context) error { fmt.Println("database closed"); return nil })
	mux := http.NewServeMux()
	s.Health().Register(mux)
	s.HTTP(l, &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second})
	s.Go("relay", func(ctx context.Context) error { <-ctx.Done(); fmt.Println("relay drained"); return nil })
	time.AfterFunc(50*time.Millisecond, stop) // or SIGTERM
	fmt.Println(s.Run(ctx))
	// Output:
	// relay drained
	// database closed
	// <nil>
}
