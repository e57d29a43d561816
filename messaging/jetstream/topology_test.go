package jetstream_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/jetstream"
)

// Groups whose names NATS does not allow do not meet.
func TestGroupsOfAnyName(t *testing.T) {
	t.Parallel()
	b := open(t, shared.ClientURL(), jetstream.Config{})
	long := strings.Repeat("a.", 99)
	groups := []string{"a.b", "a=2Eb", "a*", "a>", "a/b", "a b", "ñandú", long + "1", long + "2"}
	var streams []messaging.Stream
	for _, g := range groups {
		streams = append(streams, subscribe(t, b, g, 1, "t"))
	}
	if err := b.Publish(t.Context(), "t", 1); err != nil {
		t.Fatal(err)
	}
	for i, s := range streams {
		if err := receive(t, s).DeadLetter(t.Context(), errors.New(groups[i])); err != nil {
			t.Fatal(err)
		}
	}
	for i, g := range groups {
		dead, err := b.DeadLetters(t.Context(), g, 10)
		if err != nil || len(dead) != 1 || dead[0].Reason != g || dead[0].Origin != g {
			t.Errorf("group %q: %+v, %v", g, dead, err)
		}
		if n, err := b.Redrive(t.Context(), g, 10); n != 1 || err != nil {
			t.Errorf("redrive %q: %d, %v", g, n, err)
		}
		if err := receive(t, streams[i]).Ack(t.Context()); err != nil {
			t.Error(err)
		}
		if err := streams[i].Close(); err != nil {
			t.Error(err)
		}
	}
}

// Stream and consumer that are deleted while the program runs are made again.
func TestDeletedTopologyIsMadeAgain(t *testing.T) {
	t.Parallel()
	b := open(t, shared.ClientURL(), jetstream.Config{Stream: "deleted",
		Reconnect: messaging.Constant(10 * time.Millisecond)})
	s := subscribe(t, b, "g", 1, "t")
	js, err := natsjs.New(dial(t, shared.ClientURL()))
	if err != nil {
		t.Fatal(err)
	}
	for _, remove := range []func() error{
		func() error { return js.DeleteConsumer(t.Context(), "deleted", "g") },
		func() error { return js.DeleteStream(t.Context(), "deleted") },
	} {
		if err := remove(); err != nil {
			t.Fatal(err)
		}
		for i, got := 0, 0; got < 3; i++ { // what comes before the consumer is there again has no group
			if err := b.Publish(t.Context(), "t", i); err != nil {
				t.Fatal(err)
			}
			d, err := s.Receive(within(t, 100*time.Millisecond))
			if err == nil {
				got++
				if err := d.Ack(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if i > 300 {
				t.Fatal("nothing is delivered")
			}
		}
	}
	if err := b.Health(t.Context()); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

var unfitStreams = map[string]natsjs.StreamConfig{
	"other_subjects":  {Name: "other_subjects", Subjects: []string{"x.>"}, Retention: natsjs.InterestPolicy},
	"other_retention": {Name: "other_retention", Subjects: []string{"other_retention.>", "other_retention_retry.>"}},
	"missing":         {},
	"replicas":        {},
}

// A stream that does not fit, and with Passive one that is missing, is an ErrTopology at once.
func TestTopologyThatDoesNotFit(t *testing.T) {
	t.Parallel()
	js, err := natsjs.New(dial(t, shared.ClientURL()))
	if err != nil {
		t.Fatal(err)
	}
	for name, cfg := range unfitStreams {
		if cfg.Name != "" {
			if _, err := js.CreateStream(t.Context(), cfg); err != nil {
				t.Fatal(err)
			}
		}
		c := jetstream.Config{Stream: name, Passive: name == "missing"}
		if name == "replicas" { // one server has none
			c.Replicas = 3
		}
		b := open(t, shared.ClientURL(), c)
		begin := time.Now()
		if err := b.Publish(t.Context(), "t", 1); !errors.Is(err, jetstream.ErrTopology) {
			t.Errorf("%s: publish: %v", name, err)
		}
		if _, err := b.Subscribe(t.Context(), messaging.Subscription{Group: "g", Patterns: []string{"t"}}); !errors.Is(err,
			jetstream.ErrTopology) {
			t.Errorf("%s: subscribe: %v", name, err)
		}
		if err := b.Health(t.Context()); !errors.Is(err, jetstream.ErrTopology) {
			t.Errorf("%s: health: %v", name, err)
		}
		if time.Since(begin) > 5*time.Second {
			t.Errorf("%s: it took %v", name, time.Since(begin))
		}
	}
}
