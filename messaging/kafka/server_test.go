package kafka_test

import (
	"flag"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/goleak"

	"github.com/sillar-go/sillar/internal/killtest"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/kafka"
)

var quiet = slog.New(slog.DiscardHandler)

const patience = 30 * time.Second

// shared is a cluster of one broker in this process for all tests that do it no harm.
var shared *kfake.Cluster

// url names the cluster that SILLAR_KAFKA_URL names, else shared.
var url string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		killtest.Main()
		flag.Parse()
		if err := flag.Set("test.parallel", "8"); err != nil { // they wait, for rebalances mostly
			panic(err)
		}
		var err error
		if shared, err = kfake.NewCluster(kfake.NumBrokers(1)); err != nil {
			panic(err)
		}
		if url = os.Getenv("SILLAR_KAFKA_URL"); url == "" {
			url = urlOf(shared)
		}
		code := m.Run()
		shared.Close()
		if err := goleak.Find(); err != nil && code == 0 {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		return code
	}())
}

func urlOf(c *kfake.Cluster) string { return "kafka://" + strings.Join(c.ListenAddrs(), ",") }

var names atomic.Int64

// unique is a prefix that no other test has, of any run.
func unique() string { return fmt.Sprintf("test_%d_%d", time.Now().UnixNano(), names.Add(1)) }

// open makes a broker with a prefix of its own, which is closed with the test.
func open(t *testing.T, url string, cfg kafka.Config) *kafka.Broker {
	t.Helper()
	cfg.Source = "test"
	if cfg.Logger == nil {
		cfg.Logger = quiet
	}
	if cfg.Prefix == "" {
		cfg.Prefix = unique()
	}
	if cfg.SessionTimeout == 0 {
		cfg.SessionTimeout = 6 * time.Second // heartbeats, by which rebalances are noticed, every 0.4 s
	}
	b, err := kafka.New(url, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return b
}

func subscribe(t *testing.T, b messaging.Broker, group string, prefetch int, patterns ...string) messaging.Stream {
	t.Helper()
	s, err := b.Subscribe(t.Context(), messaging.Subscription{Group: group, Prefetch: prefetch, Patterns: patterns})
	if err != nil {
		t.Fatal(err)
	}
	return s
}
