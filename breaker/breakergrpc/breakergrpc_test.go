package breakergrpc_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/sillar-go/sillar/breaker"
	"github.com/sillar-go/sillar/breaker/breakergrpc"
	"github.com/sillar-go/sillar/internal/correlation"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server answers with the next of its errors, and like a health server when there is none.
type server struct {
	mu     sync.Mutex
	next   []error
	always error // when next is empty
	calls  int
	md     metadata.MD
}

// every makes every call end with err.
func (s *server) every(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.always = err
}

func (s *server) answer(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	s.md, _ = metadata.FromIncomingContext(ctx)
	if len(s.next) == 0 {
		return s.always
	}
	err := s.next[0]
	s.next = s.next[1:]
	return err
}

func dial(t *testing.T, cfg breakergrpc.Config) (*server, grpc_health_v1.HealthClient, *breaker.Breaker) {
	t.Helper()
	s := &server{}
	srv := grpc.NewServer(
		grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			if err := s.answer(ctx); err != nil {
				if status.Code(err) == codes.Aborted {
					<-ctx.Done()
					err = status.FromContextError(ctx.Err()).Err()
				}
				return nil, err
			}
			return h(ctx, req)
		}),
		grpc.StreamInterceptor(func(v any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
			if err := s.answer(ss.Context()); err != nil {
				if status.Code(err) == codes.Aborted {
					<-ss.Context().Done()
					err = status.FromContextError(ss.Context().Err()).Err()
				}
				return err
			}
			return h(v, ss)
		}))
	grpc_health_v1.RegisterHealthServer(srv, health.NewServer())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = srv.Serve(l) }()
	g := breakergrpc.Must(breakergrpc.New(cfg))
	conn, err := grpc.NewClient(l.Addr().String(), append(g.DialOptions(),
		grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); srv.Stop() })
	return s, grpc_health_v1.NewHealthClient(conn), g.Breaker(l.Addr().String())
}

func check(ctx context.Context, c grpc_health_v1.HealthClient) error {
	_, err := c.Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	return err
}

func TestStatusCodesAreClassified(t *testing.T) {
	failures := map[codes.Code]bool{codes.DeadlineExceeded: true, codes.Internal: true, codes.Unavailable: true,
		codes.DataLoss: true, codes.ResourceExhausted: true}
	s, c, b := dial(t, breakergrpc.Config{Breaker: breaker.Config{Failures: -1}})
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		if code == codes.Aborted {
			continue // hangs in this server
		}
		before := b.Counts()
		s.next = []error{status.Error(code, "x")}
		if err := check(t.Context(), c); status.Code(err) != code {
			t.Errorf("%v reached the caller as %v", code, err)
		}
		if failed := b.Counts().Failures > before.Failures; failed != failures[code] {
			t.Errorf("%v is a failure: %v", code, failed)
		}
	}
}

func TestFailuresOpenTheBreaker(t *testing.T) {
	s, c, b := dial(t, breakergrpc.Config{Breaker: breaker.Config{Failures: 2}})
	down := status.Error(codes.Unavailable, "down")
	s.next = []error{down, down}
	_, _ = check(t.Context(), c), check(t.Context(), c)
	err := check(t.Context(), c)
	if !errors.Is(err, breaker.ErrOpen) || status.Code(err) != codes.Unavailable || s.calls != 2 {
		t.Fatalf("%v after %d calls", err, s.calls)
	}
	if _, err := c.Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{}); !errors.Is(err, breaker.ErrOpen) {
		t.Fatalf("a stream through an open breaker: %v", err)
	}
	b.Close()
	if err := check(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

func TestTimeoutAndCancellation(t *testing.T) {
	hang := status.Error(codes.Aborted, "hang")
	s, c, b := dial(t, breakergrpc.Config{Breaker: breaker.Config{Timeout: 50 * time.Millisecond}})
	s.next = []error{hang}
	if err := check(t.Context(), c); !errors.Is(err, breaker.ErrTimeout) || status.Code(err) != codes.DeadlineExceeded ||
		b.Counts().Failures != 1 {
		t.Fatalf("%v, %+v", err, b.Counts())
	}
	s, c, b = dial(t, breakergrpc.Config{})
	s.next = []error{hang}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if err := check(ctx, c); status.Code(err) != codes.Canceled || b.Counts() != (breaker.Counts{Ignored: 1}) {
		t.Fatalf("%v, %+v", err, b.Counts())
	}
}

func TestRetriesIdempotentMethodsOnly(t *testing.T) {
	down := status.Error(codes.Unavailable, "down")
	for _, idempotent := range []bool{true, false} {
		s, c, _ := dial(t, breakergrpc.Config{
			Breaker:    breaker.Config{Retry: breaker.Retry{Attempts: 3, Backoff: breaker.Exponential(1, 1)}},
			Idempotent: func(m string) bool { return idempotent && m == "/grpc.health.v1.Health/Check" },
		})
		s.next = []error{down, down}
		if err := check(t.Context(), c); (err == nil) != idempotent || !idempotent && status.Code(err) != codes.Unavailable {
			t.Fatalf("idempotent %v: %v after %d calls", idempotent, err, s.calls)
		}
		if want := map[bool]int{true: 3, false: 1}[idempotent]; s.calls != want {
			t.Fatalf("idempotent %v: %d calls", idempotent, s.calls)
		}
	}
}

func TestStreamsCountOnceAndOutliveTheAttemptTimeout(t *testing.T) {
	s, c, b := dial(t, breakergrpc.Config{Breaker: breaker.Config{Failures: 2, Timeout: 20 * time.Millisecond}})
	ctx, cancel := context.WithCancel(correlation.With(t.Context(), "c-1"))
	w, err := c.Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Recv(); err != nil {
		t.Fatal(err)
	}
	if b.Counts() != (breaker.Counts{Successes: 1}) {
		t.Fatalf("after the first message: %+v", b.Counts())
	}
	if got := s.md.Get("x-correlation-id"); len(got) != 1 || got[0] != "c-1" {
		t.Fatalf("metadata %v", s.md)
	}
	time.Sleep(40 * time.Millisecond) // longer than the attempt timeout
	cancel()
	if _, err := w.Recv(); status.Code(err) != codes.Canceled {
		t.Fatalf("the attempt timeout ended the stream: %v", err)
	}
	s.next = []error{status.Error(codes.Internal, "x"), status.Error(codes.Internal, "x")}
	for range 2 {
		w, err := c.Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Recv(); status.Code(err) != codes.Internal {
			t.Fatal(err)
		}
	}
	if b.State() != breaker.Open {
		t.Fatalf("two broken streams: %v", b.State())
	}
}
