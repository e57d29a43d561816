package rabbitmq_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/sillar-go/sillar/internal/faultproxy"
	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/rabbitmq"
)

// through returns a URL that leads to the server by way of a proxy, and the direct one.
func through(t *testing.T) (via, direct string, p *faultproxy.Proxy) {
	t.Helper()
	direct = testenv.RabbitMQ(t)
	u, err := url.Parse(direct)
	if err != nil {
		t.Fatal(err)
	}
	p = faultproxy.New(t, u.Host)
	u.Host = p.Addr()
	return u.String(), direct, p
}

func open(t *testing.T, url string, cfg rabbitmq.Config) *rabbitmq.Broker {
	t.Helper()
	cfg.Source = "test"
	if cfg.Logger == nil {
		cfg.Logger = quiet
	}
	b := rabbitmq.Must(rabbitmq.New(url, cfg))
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return b
}

// raw returns a channel of its own, for what an operator may do.
func raw(t *testing.T, url string) *amqp.Channel {
	t.Helper()
	c, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	ch, err := c.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func subscribe(t *testing.T, b *rabbitmq.Broker, group string, prefetch int, patterns ...string) messaging.Stream {
	t.Helper()
	s, err := b.Subscribe(within(t, 20*time.Second), messaging.Subscription{Group: group, Patterns: patterns,
		Prefetch: prefetch})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func receive(t *testing.T, s messaging.Stream) messaging.Delivery {
	t.Helper()
	d, err := s.Receive(within(t, 20*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// The acknowledgement of a delivery of an earlier channel fails, and settles nothing of the new one.
func TestStaleAckIsErrClosed(t *testing.T) {
	via, _, p := through(t)
	b := open(t, via, rabbitmq.Config{})
	s := subscribe(t, b, "g", 1, "t")
	for i := range 2 {
		if err := b.Publish(t.Context(), "t", i, messaging.WithID(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	stale := receive(t, s)
	p.Cut()
	fresh := receive(t, s)
	if fresh.Envelope().ID != stale.Envelope().ID || fresh.Attempt() != 1 {
		t.Fatalf("after the cut comes %s at attempt %d", fresh.Envelope().ID, fresh.Attempt())
	}
	for what, err := range map[string]error{
		"Ack": stale.Ack(t.Context()), "Requeue": stale.Requeue(t.Context()),
		"Retry": stale.Retry(t.Context(), 0, nil), "DeadLetter": stale.DeadLetter(t.Context(), nil),
	} {
		if !errors.Is(err, messaging.ErrClosed) {
			t.Errorf("stale %s: %v", what, err)
		}
	}
	p.Cut() // the fresh one was not settled: it comes again
	ackAgain(t, s)
}

// ackAgain settles the message that was delivered again.
func ackAgain(t *testing.T, s messaging.Stream) {
	t.Helper()
	again := receive(t, s)
	if again.Envelope().ID != "0" {
		t.Fatalf("message 0 was settled by the stale acknowledgement; %s comes", again.Envelope().ID)
	}
	if err := again.Ack(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d := receive(t, s); d.Envelope().ID != "1" || d.Ack(t.Context()) != nil {
		t.Fatalf("then %s", d.Envelope().ID)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// With ReportUnknown a lost confirm is ErrUnknownOutcome, never nil and never ErrNacked.
func TestUnknownOutcome(t *testing.T) {
	via, _, p := through(t)
	b := open(t, via, rabbitmq.Config{ReportUnknown: true})
	if err := subscribe(t, b, "g", 1, "t").Close(); err != nil {
		t.Fatal(err)
	}
	if err := b.Publish(t.Context(), "t", 1); err != nil {
		t.Fatal(err)
	}
	p.Pause()
	done := make(chan error, 1)
	go func() { done <- b.Publish(t.Context(), "t", 1) }()
	time.Sleep(50 * time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := b.Publish(ctx, "t", 1); !errors.Is(err, messaging.ErrUnknownOutcome) ||
		!errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a black hole: %v", err)
	}
	p.Resume()
	if err := <-done; err != nil {
		t.Errorf("after the black hole: %v", err)
	}
	p.Pause()
	go func() { done <- b.Publish(t.Context(), "t", 1) }()
	time.Sleep(50 * time.Millisecond)
	p.Cut()
	p.Resume()
	if err := <-done; !errors.Is(err, messaging.ErrUnknownOutcome) || errors.Is(err, messaging.ErrNacked) {
		t.Errorf("a cut: %v", err)
	}
}

// A connection on which nothing comes any more is given up after three heartbeats, and what waited on it is sent again.
func TestBlackHoleEndsPublish(t *testing.T) {
	t.Parallel()
	via, _, p := through(t)
	b := open(t, via, rabbitmq.Config{Heartbeat: time.Second})
	s := subscribe(t, b, "g", 1, "t")
	p.Pause()
	done := make(chan error, 1)
	go func() { done <- b.Publish(within(t, 20*time.Second), "t", 1, messaging.WithID("x")) }()
	time.Sleep(3500 * time.Millisecond)
	select {
	case err := <-done:
		t.Fatalf("Publish returned %v from a black hole", err)
	default:
	}
	p.Resume()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if n := p.Connections(); n < 3 {
		t.Errorf("%d connections: the dead ones were not given up", n)
	}
	if d := receive(t, s); d.Envelope().ID != "x" || d.Ack(t.Context()) != nil {
		t.Errorf("received %s", d.Envelope().ID)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// New does not need a server; what waits ends with its context; the server's return is noticed; no password shows.
func TestDownAtStart(t *testing.T) {
	via, _, p := through(t)
	u, _ := url.Parse(via)
	password, _ := u.User.Password()
	var logged log
	p.Refuse(true)
	b := open(t, via, rabbitmq.Config{Logger: slog.New(slog.NewTextHandler(&logged, nil))})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	for what, err := range map[string]error{"Health": b.Health(ctx), "Publish": b.Publish(ctx, "t", 1)} {
		if !errors.Is(err, messaging.ErrBlocked) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := b.Subscribe(ctx, messaging.Subscription{Group: "g", Patterns: []string{"t"}}); !errors.Is(err,
		context.DeadlineExceeded) {
		t.Errorf("Subscribe: %v", err)
	}
	p.Refuse(false)
	if err := b.Health(t.Context()); err != nil {
		t.Errorf("Health after the server's return: %v", err)
	}
	if logged.String() == "" || strings.Contains(logged.String(), ":"+password+"@") {
		t.Errorf("logged %q", logged.String())
	}
}

// No error and no log line holds the password.
func TestPasswordStaysSecret(t *testing.T) {
	via, _, _ := through(t)
	u, _ := url.Parse(via)
	u.User = url.UserPassword("guest", "hunter2")
	var logged log
	b := open(t, u.String(), rabbitmq.Config{Logger: slog.New(slog.NewTextHandler(&logged, nil))})
	err := b.Health(within(t, 300*time.Millisecond))
	if err == nil || strings.Contains(err.Error()+logged.String(), "hunter2") {
		t.Fatalf("Health: %v, logged %q", err, logged.String())
	}
}

// log is a buffer for several writers.
type log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// A Subscribe whose context ends leaves no consumer behind, which would hold messages without handling them.
func TestSubscribeGivenUp(t *testing.T) {
	t.Parallel()
	via, direct, p := through(t)
	b := open(t, via, rabbitmq.Config{})
	if err := subscribe(t, b, "g", 1, "t").Close(); err != nil {
		t.Fatal(err)
	}
	p.Delay(15 * time.Millisecond)
	for wait := 10 * time.Millisecond; wait < 400*time.Millisecond; wait += 20 * time.Millisecond { // at every step of it
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		s, err := b.Subscribe(ctx, messaging.Subscription{Group: "g", Patterns: []string{"t"}, Prefetch: 5})
		cancel()
		if err == nil {
			if err = s.Close(); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
	}
	p.Delay(0)
	op := raw(t, direct)
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		q, err := op.QueueDeclarePassive("g", true, false, false, false, nil)
		if err != nil {
			t.Fatal(err)
		}
		if q.Consumers == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d consumers are left without a receiver", q.Consumers)
		}
	}
}

// A consumer whose connection was lost consumes again, though the server answers to no binding, as while a node of its
// cluster is frozen.
func TestConsumingGoesOnWithoutAnAnswerToBindings(t *testing.T) {
	t.Parallel()
	via, direct, p := through(t)
	var silent atomic.Bool
	p.Filter(func(fromTarget bool) faultproxy.Filter {
		if fromTarget {
			return nil
		}
		return func(piece []byte) (int, bool) {
			if silent.Load() {
				withoutAnswer(piece)
			}
			return len(piece), false
		}
	})
	s := subscribe(t, open(t, via, rabbitmq.Config{}), "g", 1, "t")
	other := open(t, direct, rabbitmq.Config{})
	one := func(what string) {
		t.Helper()
		if err := other.Publish(t.Context(), "t", 1); err != nil {
			t.Fatal(err)
		}
		d, err := s.Receive(within(t, 10*time.Second))
		if err == nil {
			err = d.Ack(t.Context())
		}
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	one("at first")
	silent.Store(true)
	p.Cut()
	one("after the connection was lost")
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// withoutAnswer has the server answer no queue.bind of a piece: it sets the bit no-wait.
func withoutAnswer(piece []byte) {
	for {
		_, args, ok := bytes.Cut(piece, []byte{0, 50, 0, 20, 0, 0})
		if !ok {
			return
		}
		piece = args
		for range 3 { // queue, exchange, routing key
			args = args[1+int(args[0]):]
		}
		args[0] = 1
	}
}
