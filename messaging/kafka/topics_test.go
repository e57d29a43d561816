package kafka_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/kafka"
)

// With Passive the broker makes no topics, and takes those of an operator.
func TestPassiveMakesNoTopics(t *testing.T) {
	t.Parallel()
	cl := dial(t)
	prefix := unique()
	b := open(t, url, kafka.Config{Prefix: prefix, Passive: true})
	if err := b.Publish(t.Context(), "t", 1); !errors.Is(err, kafka.ErrTopology) {
		t.Errorf("Publish: got %v, want ErrTopology", err)
	}
	if _, err := b.Subscribe(t.Context(), messaging.Subscription{Group: "g", Patterns: []string{"t"}}); !errors.Is(err,
		kafka.ErrTopology) {
		t.Errorf("Subscribe: got %v, want ErrTopology", err)
	}
	compact := map[string]*string{"cleanup.policy": kadm.StringPtr("compact")}
	for topic, configs := range map[string]map[string]*string{".t": nil, ".g.retry": nil, ".g.dead": nil,
		".sillar.bindings": compact} {
		if r, err := cl.CreateTopic(t.Context(), 1, 1, configs, prefix+topic); err != nil || r.Err != nil {
			t.Fatal(err, r.Err)
		}
	}
	works(t, open(t, url, kafka.Config{Prefix: prefix, Passive: true})) // b knows that they were missing a moment ago
}

// Topics are made as the Config says.
func TestTopicsAreMade(t *testing.T) {
	t.Parallel()
	cl := dial(t)
	prefix := unique()
	works(t, open(t, url, kafka.Config{Prefix: prefix, Partitions: 3, Keep: time.Hour}))
	for topic, want := range map[string]struct {
		partitions        int
		retention, policy string
	}{
		".t":               {3, "3600000", "delete"},
		".g.retry":         {3, "3024000000", "delete"},
		".g.dead":          {1, "-1", "delete"},
		".sillar.bindings": {1, "", "compact"},
	} {
		all, err := cl.ListTopics(t.Context(), prefix+topic)
		if err != nil || len(all[prefix+topic].Partitions) != want.partitions {
			t.Errorf("%s: got %d partitions, want %d; %v", topic, len(all[prefix+topic].Partitions), want.partitions, err)
		}
		configs, err := cl.DescribeTopicConfigs(t.Context(), prefix+topic)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range configs[0].Configs {
			if c.Key == "retention.ms" && want.retention != "" && c.MaybeValue() != want.retention ||
				c.Key == "cleanup.policy" && c.MaybeValue() != want.policy {
				t.Errorf("%s: %s is %s, want %+v", topic, c.Key, c.MaybeValue(), want)
			}
		}
	}
}

// A process of an older version gets messages of a pattern that only a newer one has subscribed to, and so can give
// them back to the group.
func TestPatternsAreTheGroups(t *testing.T) {
	t.Parallel()
	prefix := unique()
	older, newer := open(t, url, kafka.Config{Prefix: prefix}), open(t, url, kafka.Config{Prefix: prefix})
	old := subscribe(t, older, "g", 10, "orders.created")
	for _, topic := range []string{"orders.paid", "orders.created"} { // of one partition, in this order
		if err := newer.Publish(t.Context(), topic, 1, messaging.WithID("before"), messaging.WithKey("k")); err != nil {
			t.Fatal(err)
		}
	}
	if d := receive(t, old); d.Envelope().Type != "orders.created" || d.Ack(t.Context()) != nil { // the other is passed over
		t.Fatalf("got %s, want the one that the group takes", d.Envelope().Type)
	}
	if err := subscribe(t, newer, "g", 1, "orders.paid").Close(); err != nil {
		t.Fatal(err)
	}
	if err := newer.Publish(t.Context(), "orders.paid", 1, messaging.WithID("after")); err != nil {
		t.Fatal(err)
	}
	if d := receive(t, old); d.Envelope().ID != "after" {
		t.Errorf("got %s, want what was published after the pattern was added", d.Envelope().ID)
	}
}

// A pattern that begins with * takes topics that are made later, from their first message.
func TestTopicsToCome(t *testing.T) {
	t.Parallel()
	prefix := unique()
	b := open(t, url, kafka.Config{Prefix: prefix, Refresh: 50 * time.Millisecond})
	other := open(t, url, kafka.Config{Prefix: prefix})
	s := subscribe(t, b, "g", 10, "*.created")
	var got []string
	for _, topic := range []string{"orders.created", "users.created", "users.removed", "payments.created"} {
		if err := other.Publish(t.Context(), topic, 1); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		d := receive(t, s)
		got = append(got, d.Envelope().Type)
		if err := d.Ack(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(got)
	if want := []string{"orders.created", "payments.created", "users.created"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// A topic that was deleted is made again.
func TestDeletedTopicIsMadeAgain(t *testing.T) {
	t.Parallel()
	prefix := unique()
	b := open(t, url, kafka.Config{Prefix: prefix})
	if err := b.Publish(t.Context(), "t", 1); err != nil {
		t.Fatal(err)
	}
	if r, err := dial(t).DeleteTopic(t.Context(), prefix+".t"); err != nil || r.Err != nil {
		t.Fatal(err, r.Err)
	}
	if err := b.Publish(within(t, patience), "t", 1); err != nil {
		t.Error(err)
	}
}
