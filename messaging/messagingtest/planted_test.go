package messagingtest_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/jetstream"
	"github.com/sillar-go/sillar/messaging/kafka"
	"github.com/sillar-go/sillar/messaging/memory"
	"github.com/sillar-go/sillar/messaging/messagingtest"
)

// planted are wrong brokers, each in one way, by the check that must notice.
var planted = map[string]func(b *broken){
	"PublishAndHandle": func(b *broken) { b.change = func(e *messaging.Envelope) { e.Headers = nil } },
	"Batch": func(b *broken) {
		b.batch = func(events []messaging.Envelope) { slices.Reverse(events) }
	},
	"EnvelopeSurvives": func(b *broken) { b.change = func(e *messaging.Envelope) { e.Key = "" } },
	"HostileHeaders": func(b *broken) {
		b.change = func(e *messaging.Envelope) { e.ID = cmp.Or(e.Headers["cloudevents_id"], e.ID) }
	},
	"Unroutable": func(b *broken) {
		b.publish = func(_ messaging.Envelope, err error) error { return unless(err, messaging.ErrUnroutable) }
	},
	"GroupsEachGetAll": func(b *broken) { b.group = func(string) string { return "all" } },
	"ConsumersCompete": func(b *broken) {
		var n atomic.Int64
		b.group = func(g string) string { return fmt.Sprint(g, n.Add(1)) }
	},
	"Patterns": func(b *broken) {
		b.pattern = func(p string) string { return strings.ReplaceAll(p, "#", "*") }
	},
	"DelayedRetry": func(b *broken) {
		b.retry = func(d messaging.Delivery, _ time.Duration) error { return d.Retry(b.ctx, 0, nil) }
	},
	"DelayedPublish": func(b *broken) { b.hasty = true },
	"DelayOutlivesConsumer": func(b *broken) { // the pause is the consumer's
		b.retry = func(messaging.Delivery, time.Duration) error { return nil }
	},
	"StartPosition": func(b *broken) { b.anywhere = true },
	"RetryReachesNoOtherGroup": func(b *broken) {
		b.retry = func(d messaging.Delivery, _ time.Duration) error {
			return errors.Join(b.Broker.PublishBatch(b.ctx, []messaging.Envelope{d.Envelope()}), d.Ack(b.ctx))
		}
	},
	"DeadLettersAndRedrive": func(b *broken) { b.redriven = true },
	"DeadLettersStay":       func(b *broken) { b.newest = true },
	"Poison":                func(b *broken) { b.reason = errors.New("something") },
	"Panic":                 func(b *broken) { b.reason = errors.New("something") },
	"Requeue": func(b *broken) {
		b.requeue = func(d messaging.Delivery) error { return d.Retry(b.ctx, 0, nil) }
	},
	"CloseGivesBack":      func(b *broken) { b.closing = func(s *stream) error { s.ackAll(); return s.Stream.Close() } },
	"StopKeepsDeliveries": func(b *broken) { b.stopping = func(s *stream) error { return s.Stream.Close() } },
	"SettlesOnce": func(b *broken) {
		b.retry = func(d messaging.Delivery, delay time.Duration) error {
			return unless(d.Retry(b.ctx, delay, nil), messaging.ErrClosed)
		}
	},
	"QueueOutlivesConsumers": func(b *broken) {
		b.orphans = true
	},
	"Prefetch": func(b *broken) { b.prefetch = 100 },
	"Drain": func(b *broken) { // what was handed out ahead is lost
		b.stopping = func(s *stream) error {
			for {
				ctx, cancel := context.WithTimeout(b.ctx, 20*time.Millisecond)
				d, err := s.Stream.Receive(ctx)
				cancel()
				if err != nil {
					return s.Stream.Stop()
				}
				_ = d.Ack(b.ctx)
			}
		}
	},
	"OrderPerKey": func(b *broken) { b.swap = true },
	"KeysAcrossConsumers": func(b *broken) { // kafka has the partitions anyway
		b.swap, b.whole = os.Getenv(adapter) != "", true
	},
	"BlockingRetry": func(b *broken) { b.forgetful = true },
	"ManyNoneLost": func(b *broken) {
		var n atomic.Int64
		b.drop = func() bool { return n.Add(1)%1000 == 0 }
	},
	"ReceiveHonoursContext": func(b *broken) { b.swallow = true },
	"Closed": func(b *broken) {
		b.publish = func(_ messaging.Envelope, err error) error { return unless(err, messaging.ErrClosed) }
	},
	"BackPressure": func(b *broken) { b.Broker = memory.Must(memory.New(memory.Config{MaxQueue: -1})) },
}

const (
	variable = "SILLAR_PLANTED"
	// adapter names the broker under the bugs: memory unless it is set, jetstream or kafka.
	adapter = "SILLAR_PLANTED_BROKER"
)

// sound makes the broker that bugs are planted into.
func sound(t *testing.T) messaging.Broker {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	switch os.Getenv(adapter) {
	case "jetstream":
		srv, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true,
			StoreDir: t.TempDir(), NoLog: true, NoSigs: true})
		if err != nil {
			t.Fatal(err)
		}
		go srv.Start()
		t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
		if !srv.ReadyForConnections(30 * time.Second) {
			t.Fatal("the server is not ready")
		}
		return jetstream.Must(jetstream.New(srv.ClientURL(), jetstream.Config{Source: "test", Keep: time.Hour,
			Logger: quiet}))
	case "kafka":
		c, err := kfake.NewCluster(kfake.NumBrokers(1))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return kafka.Must(kafka.New("kafka://"+c.ListenAddrs()[0], kafka.Config{Source: "test", Logger: quiet,
			SessionTimeout: 6 * time.Second}))
	}
	return memory.Must(memory.New(memory.Config{MaxQueue: room}))
}

// undeclared are the checks that the broker is excused from by what it declares. Where it declares that unroutable
// messages are not noticed, the check of Unroutable has nothing to notice.
func undeclared() []string {
	switch os.Getenv(adapter) {
	case "jetstream":
		return []string{"BackPressure", "Unroutable", "KeysAcrossConsumers"}
	case "kafka":
		return []string{"BackPressure", "Unroutable", "ConsumersCompete"}
	}
	return nil
}

const room = 3000

// TestSuitePassesForAWrappedBroker passes for a broker that only wraps another. TestPlantedBugs runs it again, in
// processes of their own, with a broken one.
func TestSuitePassesForAWrappedBroker(t *testing.T) {
	name := os.Getenv(variable)
	f := messagingtest.Features{MaxQueue: room}
	if os.Getenv(adapter) != "" {
		f.MaxQueue = 0
	}
	if planted[name] != nil {
		f.Patience = time.Second // a check that fails by waiting
	}
	messagingtest.Run(t, func(t *testing.T) messaging.Broker {
		b := &broken{Broker: sound(t), ctx: context.Background()}
		if plant := planted[name]; plant != nil {
			plant(b)
		}
		return b
	}, f)
}

// Every check of the suite fails for a broker that breaks what it checks, and passes for one that only wraps.
func TestPlantedBugs(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	run := func(t *testing.T, name, check string) string {
		cmd := exec.CommandContext(t.Context(), exe, "-test.run", "^TestSuitePassesForAWrappedBroker$/^"+check+"$", "-test.v", "-test.timeout",
			"30s")
		cmd.Env = append(os.Environ(), variable+"="+name)
		out, _ := cmd.CombinedOutput() // how it ended is in it
		return string(out)
	}
	all := run(t, "nothing", ".*")
	checks := 0
	for line := range strings.Lines(all) {
		if _, name, ok := strings.Cut(line, "--- PASS: TestSuitePassesForAWrappedBroker/"); ok {
			checks++
			name, _, _ = strings.Cut(name, " ")
			if planted[name] == nil {
				t.Errorf("no bug is planted for %s", name)
			}
		}
	}
	if checks < len(planted)-len(undeclared()) {
		t.Errorf("%d checks pass for a sound broker, and %d have a planted bug:\n%s", checks, len(planted), all)
	}
	for _, name := range slices.Sorted(maps.Keys(planted)) {
		if slices.Contains(undeclared(), name) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if out := run(t, name, name); !strings.Contains(out, "--- FAIL: TestSuitePassesForAWrappedBroker/"+name) {
				t.Errorf("the check did not notice:\n%s", out)
			}
		})
	}
}

func unless(err, what error) error {
	if errors.Is(err, what) {
		return nil
	}
	return err
}

// broken is a broker with a bug.
type broken struct {
	messaging.Broker
	ctx context.Context

	change                    func(e *messaging.Envelope) // of what comes
	batch                     func(events []messaging.Envelope)
	publish                   func(e messaging.Envelope, err error) error
	drop                      func() bool
	group, pattern            func(string) string
	retry                     func(d messaging.Delivery, delay time.Duration) error
	requeue                   func(d messaging.Delivery) error
	closing, stopping         func(s *stream) error
	reason                    error
	prefetch                  int
	redriven, newest, orphans bool // Redrive says so; DeadLetters turns them round; a queue dies with its consumer
	swap, swallow             bool // Receive swaps; it takes messages after its caller has left
	hasty                     bool // Publish ignores the time of delivery
	forgetful                 bool // a delivery does not count the attempts made in place
	anywhere, whole           bool // Subscribe ignores the start position, or the number of partitions

	mu  sync.Mutex
	all int // open streams
}

func (b *broken) Features() messaging.Features { return messaging.FeaturesOf(b.Broker) }

func (b *broken) Publish(ctx context.Context, topic string, payload any, opts ...messaging.Option) error {
	b.mu.Lock()
	orphan := b.orphans && b.all == 0
	b.mu.Unlock()
	if orphan || b.drop != nil && b.drop() {
		return nil
	}
	if b.hasty {
		opts = append(opts, messaging.WithDeliverAt(time.Time{}))
	}
	err := b.Broker.Publish(ctx, topic, payload, opts...)
	if b.publish != nil {
		err = b.publish(messaging.Envelope{Type: topic}, err)
	}
	return err
}

func (b *broken) PublishBatch(ctx context.Context, events []messaging.Envelope) error {
	events = slices.Clone(events)
	if b.batch != nil {
		b.batch(events)
	}
	return b.Broker.PublishBatch(ctx, events)
}

func (b *broken) Subscribe(ctx context.Context, s messaging.Subscription) (messaging.Stream, error) {
	if b.group != nil {
		s.Group = b.group(s.Group)
	}
	if b.pattern != nil {
		s.Patterns = slices.Clone(s.Patterns)
		for i, p := range s.Patterns {
			s.Patterns[i] = b.pattern(p)
		}
	}
	s.Prefetch = max(s.Prefetch, b.prefetch)
	if b.anywhere {
		s.Start = messaging.Start{}
	}
	if b.whole {
		s.Partitions = 0
	}
	inner, err := b.Broker.Subscribe(ctx, s)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all++
	return &stream{Stream: inner, b: b}, nil
}

func (b *broken) DeadLetters(ctx context.Context, group string, limit int) ([]messaging.DeadLetter, error) {
	dead, err := b.Broker.DeadLetters(ctx, group, limit)
	if b.newest {
		slices.Reverse(dead)
	}
	return dead, err
}

func (b *broken) Redrive(ctx context.Context, group string, limit int) (int, error) {
	if b.redriven {
		return limit, nil
	}
	return b.Broker.Redrive(ctx, group, limit)
}

type stream struct {
	messaging.Stream
	b      *broken
	mu     sync.Mutex
	held   []messaging.Delivery
	second messaging.Delivery
	lost   chan error // of a Receive that was given up
}

func (s *stream) ackAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.held {
		_ = d.Ack(s.b.ctx)
	}
}

func (s *stream) Receive(ctx context.Context) (messaging.Delivery, error) {
	if d := s.second; d != nil {
		s.second = nil
		return d, nil
	}
	if s.b.swallow {
		if s.lost != nil { // it comes first, and what it gets is gone
			select {
			case <-s.lost:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		come := make(chan error, 1)
		var d messaging.Delivery
		go func() { var err error; d, err = s.Stream.Receive(s.b.ctx); come <- err }()
		select {
		case err := <-come:
			return s.wrap(d), err
		case <-ctx.Done():
			s.lost = come
			return nil, ctx.Err()
		}
	}
	d, err := s.Stream.Receive(ctx)
	if err != nil {
		return nil, err
	}
	if s.b.swap {
		short, cancel := context.WithTimeout(ctx, 2*time.Millisecond)
		defer cancel()
		if later, err := s.Stream.Receive(short); err == nil {
			s.second = s.wrap(d)
			return s.wrap(later), nil
		}
	}
	return s.wrap(d), nil
}

func (s *stream) wrap(d messaging.Delivery) messaging.Delivery {
	if d == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = append(s.held, d)
	return &delivery{d, s.b}
}

func (s *stream) Stop() error {
	if s.b.stopping != nil {
		return s.b.stopping(s)
	}
	return s.Stream.Stop()
}

func (s *stream) Close() error {
	s.b.mu.Lock()
	s.b.all--
	s.b.mu.Unlock()
	if s.b.closing != nil {
		return s.b.closing(s)
	}
	return s.Stream.Close()
}

type delivery struct {
	messaging.Delivery
	b *broken
}

func (d *delivery) Envelope() messaging.Envelope {
	e := d.Delivery.Envelope()
	e.Headers = maps.Clone(e.Headers)
	if d.b.change != nil {
		d.b.change(&e)
	}
	return e
}

func (d *delivery) Advance() {
	if !d.b.forgetful {
		d.Delivery.Advance()
	}
}

func (d *delivery) Retry(ctx context.Context, delay time.Duration, reason error) error {
	if d.b.retry != nil {
		return d.b.retry(d.Delivery, delay)
	}
	return d.Delivery.Retry(ctx, delay, reason)
}

func (d *delivery) Requeue(ctx context.Context) error {
	if d.b.requeue != nil {
		return d.b.requeue(d.Delivery)
	}
	return d.Delivery.Requeue(ctx)
}

func (d *delivery) DeadLetter(ctx context.Context, reason error) error {
	if d.b.reason != nil {
		reason = d.b.reason
	}
	return d.Delivery.DeadLetter(ctx, reason)
}
