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
