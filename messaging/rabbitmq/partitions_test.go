package rabbitmq_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/rabbitmq"
)

// A message that is retried, at once or after a pause, or redriven comes back by the partition of its key, with its
// topic.
func TestPartitionsKeepRetriesAndRedriven(t *testing.T) {
	t.Parallel()
	const keys = 8
	b := open(t, testenv.RabbitMQ(t), rabbitmq.Config{})
	s, err := b.Subscribe(t.Context(), messaging.Subscription{Group: "g", Patterns: []string{"orders.*"}, Prefetch: keys,
		Partitions: 4})
	if err != nil {
		t.Fatal(err)
	}
	for k := range keys {
		if err := b.Publish(t.Context(), "orders.created", k, messaging.WithKey(fmt.Sprint("k", k))); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(attempt int, settle func(d messaging.Delivery) error) {
		t.Helper()
		seen := map[string]bool{}
		var all []messaging.Delivery
		for range keys {
			all = append(all, receive(t, s))
		}
		for _, d := range all {
			if e := d.Envelope(); d.Attempt() != attempt || e.Type != "orders.created" || seen[e.Key] {
				t.Errorf("got topic %s, key %s at attempt %d, want attempt %d", e.Type, e.Key, d.Attempt(), attempt)
			}
			seen[d.Envelope().Key] = true
			if err := settle(d); err != nil {
				t.Error(err)
			}
		}
	}
	boom := errors.New("boom")
	expect(1, func(d messaging.Delivery) error { return d.Retry(t.Context(), 0, boom) })
	expect(2, func(d messaging.Delivery) error { return d.Retry(t.Context(), 100*time.Millisecond, boom) })
	expect(3, func(d messaging.Delivery) error { return d.DeadLetter(t.Context(), boom) })
	if n, err := b.Redrive(t.Context(), "g", 100); n != keys || err != nil {
		t.Errorf("Redrive: %d, %v, want %d", n, err, keys)
	}
	expect(1, func(d messaging.Delivery) error { return d.Ack(t.Context()) })
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// A group keeps the number of its partitions, until it is deleted.
func TestPartitionsHaveOneNumber(t *testing.T) {
	t.Parallel()
	b := open(t, testenv.RabbitMQ(t), rabbitmq.Config{})
	try := func(partitions int) error {
		s, err := b.Subscribe(t.Context(), messaging.Subscription{Group: "g", Patterns: []string{"t"}, Prefetch: 1,
			Partitions: partitions})
		if err == nil {
			err = s.Close()
		}
		return err
	}
	if err := try(3); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{2, 4} {
		if err := try(n); !errors.Is(err, rabbitmq.ErrTopology) {
			t.Errorf("%d partitions where there are 3: %v, want %v", n, err, rabbitmq.ErrTopology)
		}
	}
	replacePartitions(t, b)
	if err := try(2); err != nil {
		t.Errorf("2 partitions after DeleteGroup: %v", err)
	}
}

// replacePartitions deletes the group and makes it with another number.
func replacePartitions(t *testing.T, b *rabbitmq.Broker) {
	t.Helper()
	if err := b.Publish(t.Context(), "t", 1); err != nil {
		t.Fatal(err)
	}
	if err := b.DeleteGroup(t.Context(), "g"); !errors.Is(err, rabbitmq.ErrInUse) {
		t.Errorf("DeleteGroup with a message: %v, want %v", err, rabbitmq.ErrInUse)
	}
	if err := b.Unbind(t.Context(), "g", "t"); err != nil {
		t.Fatal(err)
	}
	if err := b.Publish(t.Context(), "t", 1); !errors.Is(err, messaging.ErrUnroutable) {
		t.Errorf("Publish after Unbind: %v, want %v", err, messaging.ErrUnroutable)
	}
	s, err := b.Subscribe(t.Context(), messaging.Subscription{Group: "g", Prefetch: 1, Partitions: 3})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(receive(t, s).Ack(t.Context()), s.Close()); err != nil {
		t.Fatal(err)
	}
	for err = rabbitmq.ErrInUse; errors.Is(err, rabbitmq.ErrInUse); { // until the server has taken note of the close
		err = b.DeleteGroup(within(t, patience), "g")
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Three processes handle the group at once, each its share, and one that is killed leaves it to the others.
func TestPartitionsAreShared(t *testing.T) {
	t.Parallel()
	url := testenv.RabbitMQ(t)
	var mu sync.Mutex
	by := map[int]map[string]bool{} // keys that a process handled of late
	start := func(process int) (stop func()) {
		ctx, cancel := context.WithCancel(t.Context())
		r := messaging.Must(messaging.NewRouter(open(t, url, rabbitmq.Config{}), messaging.RouterConfig{Logger: quiet}))
		messaging.HandleRaw(r.Group("g", messaging.GroupConfig{Concurrency: 4, Partitions: 6}), "t",
			func(_ context.Context, m messaging.Message[[]byte]) error {
				mu.Lock()
				defer mu.Unlock()
				if by[process] == nil {
					by[process] = map[string]bool{}
				}
				by[process][m.Key] = true
				return nil
			})
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
	const keys = 60
	b := open(t, url, rabbitmq.Config{})
	handledBy := func(processes ...int) bool {
		mu.Lock()
		clear(by)
		mu.Unlock()
		for k := range keys {
			if err := b.Publish(t.Context(), "t", k, messaging.WithKey(fmt.Sprint("k", k))); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(50 * time.Millisecond)
		mu.Lock()
		defer mu.Unlock()
		for _, p := range processes { // about 60 / processes, of partitions that differ
			if len(by[p]) < keys/len(processes)/4 {
				return false
			}
		}
		return len(by) == len(processes)
	}
	await := func(processes ...int) {
		t.Helper()
		begin := time.Now()
		for !handledBy(processes...) {
			if time.Since(begin) > patience {
				t.Fatalf("the group is not shared by processes %v after %v: %v", processes, patience, by)
			}
		}
		t.Logf("shared by %v after %v", processes, time.Since(begin))
	}
	stop0, stop1 := start(0), start(1)
	await(0, 1)
	stop2 := start(2)
	await(0, 1, 2)
	stop1()
	await(0, 2)
	stop0()
	await(2)
	stop2()
}

// A key has the same partition after a restart of the server.
func TestPartitionsOfAServerThatRestarts(t *testing.T) {
	if testing.Short() {
		testenv.Missing(t, "a server is started twice: run without -short")
	}
	t.Parallel()
	const keys, partitions = 100, 12
	node := testenv.RabbitMQNode(t)
	b := open(t, node.URL(), rabbitmq.Config{})
	subscribe := func(group string) error {
		s, err := b.Subscribe(within(t, patience), messaging.Subscription{Group: group, Patterns: []string{"t"}, Prefetch: 1,
			Partitions: partitions})
		if err == nil {
			err = s.Close()
		}
		return err
	}
	if err := subscribe("g"); err != nil {
		t.Fatal(err)
	}
	publish := func() {
		for k := range keys {
			if err := b.Publish(within(t, patience), "t", k, messaging.WithKey(fmt.Sprint("k", k))); err != nil {
				t.Fatal(err)
			}
		}
	}
	counts := func() (n [partitions]int) {
		c, err := amqp.Dial(node.URL())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		ch, err := c.Channel()
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			q, err := ch.QueueDeclarePassive(fmt.Sprintf("g.partition.%03d", i), true, false, false, false, nil)
			if err != nil {
				t.Fatal(err)
			}
			n[i] = q.Messages
		}
		return n
	}
	publish()
	before := counts()
	node.Stop(t)
	node.Start(t)
	publish()
	after := counts()
	used := 0
	for i, n := range before {
		if n > 0 {
			used++
		}
		if after[i] != 2*n {
			t.Errorf("partition %d has %d messages, and had %d before the restart: want as many again", i, after[i], n)
		}
	}
	if used < partitions-2 {
		t.Errorf("%d of %d partitions have keys", used, partitions)
	}
}

// What has no key, such as a message of another program, goes to one partition, and in the order in which it came.
func TestPartitionsTakeMessagesWithoutKey(t *testing.T) {
	t.Parallel()
	b := open(t, testenv.RabbitMQ(t), rabbitmq.Config{Unpartitioned: true})
	s, err := b.Subscribe(t.Context(), messaging.Subscription{Group: "g", Patterns: []string{"t"}, Prefetch: 100,
		Partitions: 4})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		id := fmt.Sprint(i)
		if err := b.Publish(t.Context(), "t", i, messaging.WithID(id), messaging.WithKey(id)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 20 {
		d := receive(t, s)
		if d.Envelope().ID != fmt.Sprint(i) {
			t.Errorf("got %s, want %d", d.Envelope().ID, i)
		}
		if err := d.Ack(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// The second routing key of a message reaches no group whose patterns do not have its topic.
func TestPatternsDoNotMatchTheKeyOfAPartition(t *testing.T) {
	t.Parallel()
	b := open(t, testenv.RabbitMQ(t), rabbitmq.Config{})
	var streams []messaging.Stream
	for i, pattern := range []string{"#", "*", "*.*.#", "a.*", "*.b.#"} {
		streams = append(streams, subscribe(t, b, fmt.Sprint("g", i), 1, pattern))
	}
	for _, topic := range []string{"t", "a.b"} { // the second one shows that no more of the first comes
		if err := b.Publish(t.Context(), topic, 1, messaging.WithKey("k")); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range [][]string{{"t", "a.b"}, {"t"}, {"a.b"}, {"a.b"}, {"a.b"}} {
		for _, topic := range want {
			d := receive(t, streams[i])
			if d.Envelope().Type != topic {
				t.Errorf("group %d got %s, want %s", i, d.Envelope().Type, topic)
			}
			if err := d.Ack(t.Context()); err != nil {
				t.Error(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if d, err := streams[i].Receive(ctx); err == nil {
			t.Errorf("group %d got %s as well", i, d.Envelope().Type)
		}
		cancel()
	}
}
