// Package messagingtest checks that a broker keeps the promises of package messaging. An adapter's test calls Run with
// a function that makes an empty broker:
//
//	func TestConformance(t *testing.T) {
//		messagingtest.Run(t, func(t *testing.T) messaging.Broker {
//			return mine.Must(mine.New(mine.Config{Source: "test"}))
//		}, messagingtest.Features{})
//	}
package messagingtest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sillar-go/sillar/messaging"
)

// Features says what the suite cannot learn from the broker, whose own messaging.Features decide what is checked.
type Features struct {
	// MaxQueue is how many messages a queue of the factory's brokers holds before Publish waits. 0: it never waits,
	// and back-pressure is not checked.
	MaxQueue int
	// Patience bounds every wait of the suite. Default 30s.
	Patience time.Duration
}

// Factory makes an empty broker with a source. Run closes it.
type Factory func(t *testing.T) messaging.Broker

// Run runs all checks, each on a broker of its own.
func Run(t *testing.T, factory Factory, f Features) {
	t.Helper()
	if f.Patience <= 0 {
		f.Patience = 30 * time.Second
	}
	for _, c := range []struct {
		name  string
		check func(*env)
	}{
		{"PublishAndHandle", publishAndHandle},
		{"Batch", batch},
		{"EnvelopeSurvives", envelopeSurvives},
		{"HostileHeaders", hostileHeaders},
		{"Unroutable", unroutable},
		{"GroupsEachGetAll", groups},
		{"ConsumersCompete", compete},
		{"Patterns", patterns},
		{"StartPosition", startPosition},
		{"DelayedPublish", delayedPublish},
		{"DelayedRetry", delayedRetry},
		{"DelayOutlivesConsumer", delayOutlives},
		{"RetryReachesNoOtherGroup", retryStays},
		{"DeadLettersAndRedrive", deadLetters},
		{"DeadLettersStay", deadLettersStay},
		{"Poison", poison},
		{"Panic", panics},
		{"Requeue", requeue},
		{"CloseGivesBack", closeGivesBack},
		{"StopKeepsDeliveries", stopKeeps},
		{"SettlesOnce", settlesOnce},
		{"QueueOutlivesConsumers", outlives},
		{"Prefetch", prefetch},
		{"Drain", drain},
		{"OrderPerKey", orderPerKey},
		{"KeysAcrossConsumers", keysAcrossConsumers},
		{"BlockingRetry", blockingRetry},
		{"ManyNoneLost", many},
		{"ReceiveHonoursContext", receiveContext},
		{"Closed", closed},
		{"BackPressure", backPressure},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := factory(t)
			e := &env{T: t, Broker: b, f: f, features: messaging.FeaturesOf(b)}
			e.ctx, e.cancel = context.WithTimeout(t.Context(), 2*f.Patience)
			defer e.cancel()
			defer func() {
				if err := b.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			}()
			c.check(e)
		})
	}
}

// env is a check's surroundings.
type env struct {
	*testing.T
	messaging.Broker
	f        Features
	features messaging.Features
	ctx      context.Context
	cancel   context.CancelFunc
}

type order struct {
	ID string `json:"id"`
}

var errBoom = errors.New("boom")

func (e *env) must(err error) {
	e.Helper()
	if err != nil {
		e.Fatal(err)
	}
}

func (e *env) publish(topic string, payload any, opts ...messaging.Option) {
	e.Helper()
	e.must(e.Publish(e.ctx, topic, payload, opts...))
}

func (e *env) subscribe(group string, prefetch int, patterns ...string) messaging.Stream {
	e.Helper()
	s, err := e.Subscribe(e.ctx, messaging.Subscription{Group: group, Patterns: patterns, Prefetch: prefetch})
	e.must(err)
	return s
}

func (e *env) receive(s messaging.Stream) messaging.Delivery {
	e.Helper()
	ctx, cancel := context.WithTimeout(e.ctx, e.f.Patience)
	defer cancel()
	d, err := s.Receive(ctx)
	e.must(err)
	return d
}

// nothing checks that no delivery comes for a while.
func (e *env) nothing(s messaging.Stream) {
	e.Helper()
	ctx, cancel := context.WithTimeout(e.ctx, 100*time.Millisecond)
	defer cancel()
	if d, err := s.Receive(ctx); err == nil {
		e.Fatalf("unexpected delivery of %s (%s), attempt %d", d.Envelope().ID, d.Envelope().Type, d.Attempt())
	}
}

// until waits for a condition.
func (e *env) until(what string, ok func() bool) {
	e.Helper()
	for end := time.Now().Add(e.f.Patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			e.Fatalf("waited %v for %s", e.f.Patience, what)
		}
	}
}

func (e *env) dead(group string, n int) (dead []messaging.DeadLetter) {
	e.Helper()
	e.until(fmt.Sprintf("%d dead letters", n), func() bool {
		var err error
		dead, err = e.DeadLetters(e.ctx, group, n+1)
		e.must(err)
		return len(dead) >= n
	})
	if len(dead) != n {
		e.Fatalf("%d dead letters, want %d", len(dead), n)
	}
	return dead
}

// route runs a router until the check ends or stop is called; stop returns what Run returned.
func (e *env) route(setup func(r *messaging.Router)) (stop func() error) {
	e.Helper()
	r := messaging.Must(messaging.NewRouter(e.Broker, messaging.RouterConfig{Logger: slog.New(slog.DiscardHandler)}))
	setup(r)
	ctx, cancel := context.WithCancel(e.ctx)
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	stop = sync.OnceValue(func() error { cancel(); return <-done })
	e.Cleanup(func() {
		if err := stop(); err != nil {
			e.Errorf("Run: %v", err)
		}
	})
	return stop
}

// bind makes a group's queue without keeping a consumer.
func (e *env) bind(group string, patterns ...string) {
	e.Helper()
	e.must(e.subscribe(group, 1, patterns...).Close())
}

// log collects strings from handlers.
type log struct {
	mu   sync.Mutex
	list []string
}

func (l *log) add(s string) { l.mu.Lock(); defer l.mu.Unlock(); l.list = append(l.list, s) }
func (l *log) of(prefix string) (list []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.list {
		if strings.HasPrefix(s, prefix) {
			list = append(list, s)
		}
	}
	return list
}
func (l *log) sorted() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(slices.Values(l.list))
}
func (l *log) len() int { l.mu.Lock(); defer l.mu.Unlock(); return len(l.list) }
