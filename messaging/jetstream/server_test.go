package jetstream_test

import (
	"flag"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"go.uber.org/goleak"

	"github.com/sillar-go/sillar/internal/killtest"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/jetstream"
)

var quiet = slog.New(slog.DiscardHandler)

const patience = 30 * time.Second

// shared is a server for all tests that do it no harm.
var shared *server.Server

func TestMain(m *testing.M) {
	os.Exit(func() int {
		killtest.Main()
		flag.Parse()
		if err := flag.Set("test.parallel", "8"); err != nil { // they wait, for elections mostly, and compute little
			panic(err)
		}
		dir, err := os.MkdirTemp("", "jetstream")
		if err != nil {
			panic(err)
		}
		defer func() { _ = os.RemoveAll(dir) }()
		if shared, err = start(&server.Options{StoreDir: dir}); err != nil {
			panic(err)
		}
		code := m.Run()
		shared.Shutdown()
		shared.WaitForShutdown()
		if err := goleak.Find(); err != nil && code == 0 {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		return code
	}())
}

// start runs a server on loopback; port 0 is any.
func start(o *server.Options) (*server.Server, error) {
	o.Host, o.JetStream, o.NoLog, o.NoSigs = "127.0.0.1", true, true, true
	if o.Port == 0 {
		o.Port = server.RANDOM_PORT
	}
	s, err := server.NewServer(o)
	if err != nil {
		return nil, err
	}
	go s.Start()
	if !s.ReadyForConnections(patience) {
		return nil, fmt.Errorf("the server is not ready")
	}
	return s, nil
}

var names atomic.Int64

// unique is the name of a stream that no other test uses.
func unique() string { return fmt.Sprintf("test_%d", names.Add(1)) }

// open makes a broker with a stream of its own at a server, which is closed with the test.
func open(t *testing.T, url string, cfg jetstream.Config) *jetstream.Broker {
	t.Helper()
	cfg.Source = "test"
	if cfg.Logger == nil {
		cfg.Logger = quiet
	}
	if cfg.Stream == "" {
		cfg.Stream = unique()
	}
	b, err := jetstream.New(url, cfg)
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
