package remote_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/sillar-go/sillar/internal/correlation"
	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/cqrs"
	"github.com/sillar-go/sillar/messaging/cqrs/remote"
	"github.com/sillar-go/sillar/messaging/memory"
	"github.com/sillar-go/sillar/messaging/rabbitmq"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type place struct {
	Order    string
	Quantity int
}

func (p place) Validate() error {
	if p.Quantity < 1 {
		return errors.New("quantity: want at least 1")
	}
	return nil
}

type placed struct {
	Order string
	By    string // the correlation id
}

var (
	errSoldOut = errors.New("orders: sold out")
	known      = remote.Errors{"sold_out": errSoldOut}
	quiet      = slog.New(slog.DiscardHandler)
)

// handler is the same in process and behind a broker.
var handler = cqrs.Chain(cqrs.HandlerFunc[place, placed](func(ctx context.Context, p place) (placed, error) {
	switch p.Order {
	case "sold out":
		return placed{}, fmt.Errorf("item 7: %w", errSoldOut)
	case "broken":
		return placed{}, errors.New("password=secret")
	case "slow":
		<-ctx.Done()
		return placed{}, ctx.Err()
	}
	return placed{Order: p.Order, By: correlation.From(ctx)}, nil
}), cqrs.Validated[place, placed](place.Validate))

// serve runs a router until the test ends or stop is called.
func serve(t *testing.T, b messaging.Broker, cfg messaging.GroupConfig) (stop func()) {
	t.Helper()
	r := messaging.Must(messaging.NewRouter(b, messaging.RouterConfig{Logger: quiet}))
	remote.Handle(r.Group("orders", cfg), "orders.place", handler, b, remote.Config{Errors: known, Logger: quiet})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	<-r.Running()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

// A handler behind a broker returns what it returns in process, errors by their kind.
func TestACallReturnsWhatTheHandlerReturns(t *testing.T) {
	brokers := map[string]func(t *testing.T) messaging.Broker{
		"memory": func(*testing.T) messaging.Broker { return memory.Must(memory.New(memory.Config{})) },
		"rabbitmq": func(t *testing.T) messaging.Broker {
			return rabbitmq.Must(rabbitmq.New(testenv.RabbitMQ(t), rabbitmq.Config{Source: "test", Logger: quiet}))
		},
	}
	for name, open := range brokers {
		t.Run(name, func(t *testing.T) {
			b := open(t)
			defer b.Close()
			defer serve(t, b, messaging.GroupConfig{Concurrency: 4})()
			caller, err := remote.NewCaller(t.Context(), b, remote.CallerConfig{Errors: known, Logger: quiet})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := caller.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			}()
			behind := remote.Call[place, placed](caller, "orders.place")
			ctx, cancel := context.WithTimeout(correlation.With(t.Context(), "c-1"), 20*time.Second)
			defer cancel()
			for where, h := range map[string]cqrs.Handler[place, placed]{"in process": handler, "behind a broker": behind} {
				if r, err := h.Handle(ctx, place{"o-1", 2}); err != nil || r != (placed{"o-1", "c-1"}) {
					t.Errorf("%s: %+v, %v", where, r, err)
				}
				if _, err := h.Handle(ctx, place{"sold out", 1}); !errors.Is(err, errSoldOut) {
					t.Errorf("%s: sold out: %v, want %v", where, err, errSoldOut)
				}
				if _, err := h.Handle(ctx, place{"o-1", 0}); !errors.Is(err, cqrs.ErrInvalid) {
					t.Errorf("%s: no quantity: %v, want %v", where, err, cqrs.ErrInvalid)
				}
			}
			var typed *remote.Error
			if _, err := behind.Handle(ctx, place{"sold out", 1}); !errors.As(err, &typed) || typed.Code != "sold_out" ||
				typed.Text != "orders: sold out" {
				t.Errorf("sold out: %#v", err)
			}
			if _, err := behind.Handle(ctx, place{"broken", 1}); !errors.Is(err, remote.ErrFailed) ||
				err.Error() != "remote: the handler failed: failed" {
				t.Errorf("an error without a code: %v, want %v and no text of it", err, remote.ErrFailed)
			}
			if dead, err := b.DeadLetters(ctx, "orders", 10); len(dead) > 0 || err != nil {
				t.Errorf("dead letters of calls: %v, %v", dead, err)
			}
			if _, err := remote.Call[place, placed](caller, "orders.cancel").Handle(ctx, place{}); !errors.Is(err,
				messaging.ErrUnroutable) {
				t.Errorf("a call that no group takes: %v, want %v", err, messaging.ErrUnroutable)
			}
		})
	}
}

// A call ends with its context, and a request that comes after its deadline is not handled.
func TestACallEndsAtItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.Must(memory.New(memory.Config{}))
		defer b.Close()
		bind, err := b.Subscribe(t.Context(), messaging.Subscription{Group: "orders", Patterns: []string{"orders.place"}})
		if err != nil {
			t.Fatal(err)
		}
		caller, err := remote.NewCaller(t.Context(), b, remote.CallerConfig{Timeout: time.Minute, Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		var handled atomic.Int32
		call := remote.Call[place, placed](caller, "orders.place")
		begin := time.Now()
		if _, err := call.Handle(t.Context(), place{"o-1", 1}); !errors.Is(err, remote.ErrNoReply) ||
			!errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != time.Minute {
			t.Errorf("without a handler: %v after %v, want %v after a minute", err, time.Since(begin), remote.ErrNoReply)
		}
		_ = bind.Close()
		r := messaging.Must(messaging.NewRouter(b, messaging.RouterConfig{Logger: quiet}))
		count := cqrs.HandlerFunc[place, placed](func(ctx context.Context, p place) (placed, error) {
			handled.Add(1)
			return handler.Handle(ctx, p)
		})
		remote.Handle(r.Group("orders", messaging.GroupConfig{}), "orders.place", count, b, remote.Config{Logger: quiet})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		short, end := context.WithTimeout(t.Context(), time.Second)
		defer end()
		if _, err := call.Handle(short, place{"slow", 1}); !errors.Is(err, remote.ErrNoReply) || handled.Load() != 1 {
			t.Errorf("a slow handler: %v, %d handled; want %v and the one of this call", err, handled.Load(), remote.ErrNoReply)
		}
		waiting := make(chan error, 1)
		go func() { _, err := call.Handle(t.Context(), place{"slow", 1}); waiting <- err }()
		synctest.Wait()
		if err := caller.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-waiting; !errors.Is(err, remote.ErrClosed) {
			t.Errorf("a call whose caller is closed: %v, want %v", err, remote.ErrClosed)
		}
		if _, err := call.Handle(t.Context(), place{"o-1", 1}); !errors.Is(err, remote.ErrClosed) {
			t.Errorf("a call of a closed caller: %v, want %v", err, remote.ErrClosed)
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}

// A command that is sent is tried again, and a rejection makes it a dead letter at once.
func TestSentCommandsAreRetriedAndRejectionsAreNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.Must(memory.New(memory.Config{}))
		defer b.Close()
		stop := serve(t, b, messaging.GroupConfig{Retry: messaging.Retry{Attempts: 3}})
		send := remote.Send(b, "orders.place", func(p place) messaging.Option { return messaging.WithKey(p.Order) })
		for _, p := range []place{{"o-1", 1}, {"sold out", 1}, {"o-1", 0}, {"broken", 1}} {
			if _, err := send.Handle(t.Context(), p); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Hour)
		dead, err := b.DeadLetters(t.Context(), "orders", 10)
		if err != nil || len(dead) != 3 {
			t.Fatalf("dead letters %v, %v; want 3", dead, err)
		}
		for i, want := range []struct {
			key      string
			attempts int
		}{{"sold out", 1}, {"o-1", 1}, {"broken", 3}} {
			if dead[i].Key != want.key || dead[i].Attempts != want.attempts {
				t.Errorf("dead letter %s after %d attempts, want %+v", dead[i].Key, dead[i].Attempts, want)
			}
		}
		stop()
	})
}

// A request cannot have its reply published to the topic of an event.
func TestRepliesGoToCallersOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.Must(memory.New(memory.Config{}))
		defer b.Close()
		stop := serve(t, b, messaging.GroupConfig{})
		s, err := b.Subscribe(t.Context(), messaging.Subscription{Group: "paid", Patterns: []string{"orders.paid"}})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Publish(t.Context(), "orders.place", place{"o-1", 1}, messaging.WithHeader("reply-to",
			"orders.paid")); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if d, err := s.Receive(ctx); err == nil {
			t.Errorf("a reply was published as %s", d.Envelope().Type)
		}
		stop()
	})
}

// A result that does not encode, and a validation whose text is as odd as what was sent, are
// replies too: the caller does not wait in vain.
func TestEveryOutcomeIsAReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.Must(memory.New(memory.Config{Source: "test"}))
		defer b.Close()
		r := messaging.Must(messaging.NewRouter(b, messaging.RouterConfig{Logger: quiet}))
		remote.Handle(r.Group("g", messaging.GroupConfig{}), "odd", cqrs.HandlerFunc[string, any](
			func(_ context.Context, what string) (any, error) {
				switch what {
				case "does not encode":
					return make(chan int), nil
				case "odd text":
					return nil, fmt.Errorf("%w: \x00\xff\r\n%s", cqrs.ErrInvalid, strings.Repeat("é", 4096))
				}
				return "fine", nil
			}), b, remote.Config{Errors: known, Logger: quiet})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		<-r.Running()
		caller := messaging.Must(remote.NewCaller(t.Context(), b, remote.CallerConfig{Logger: quiet}))
		call := remote.Call[string, any](caller, "odd")
		for what, want := range map[string]error{"does not encode": remote.ErrFailed, "odd text": cqrs.ErrInvalid,
			"": nil} {
			began := time.Now()
			if _, err := call.Handle(t.Context(), what); !errors.Is(err, want) || time.Since(began) > time.Second {
				t.Errorf("%q: got %v after %s, want %v at once", what, err, time.Since(began), want)
			}
		}
		if err := caller.Close(); err != nil {
			t.Error(err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
