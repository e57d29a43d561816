package kafka_test

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/kafka"
)

// closing bounds Close in these tests: it takes 5 s at most, and the machine has other work.
const closing = 9 * time.Second

// Close does not wait for a cluster that does not answer.
func TestCloseWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	url, p := proxied(t)
	b := open(t, url, kafka.Config{SessionTimeout: 45 * time.Second})
	s := subscribe(t, b, "g", 10, "t")
	publish(t, b, 5)
	d := receive(t, s)
	p.Freeze()
	begin := time.Now()
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	if err := d.Ack(t.Context()); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took > closing {
		t.Errorf("Stop and Close took %v", took)
	}
}

// A group is left although its coordinator refuses each commit: another process goes on at once.
func TestGroupIsLeftWithoutACommit(t *testing.T) {
	t.Parallel()
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	cfg := kafka.Config{Prefix: unique(), SessionTimeout: 45 * time.Second}
	b := open(t, urlOf(c), cfg)
	s := subscribe(t, b, "g", 10, "t")
	publish(t, b, 5)
	asked := make(chan struct{}, 1)
	c.ControlKey(int16(kmsg.OffsetCommit), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		select {
		case asked <- struct{}{}:
		default:
		}
		r := req.(*kmsg.OffsetCommitRequest)
		resp := r.ResponseKind().(*kmsg.OffsetCommitResponse)
		for _, topic := range r.Topics {
			refused := kmsg.NewOffsetCommitResponseTopic()
			refused.Topic, refused.TopicID = topic.Topic, topic.TopicID
			for _, p := range topic.Partitions {
				part := kmsg.NewOffsetCommitResponseTopicPartition()
				part.Partition, part.ErrorCode = p.Partition, 14 // COORDINATOR_LOAD_IN_PROGRESS, which is retried
				refused.Partitions = append(refused.Partitions, part)
			}
			resp.Topics = append(resp.Topics, refused)
		}
		return resp, nil, true
	})
	if err := receive(t, s).Ack(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-asked // a regular commit is under way
	begin := time.Now()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	receive(t, subscribe(t, open(t, urlOf(c), cfg), "g", 10, "t"))
	if took := time.Since(begin); took > closing {
		t.Errorf("the group went on after %v", took)
	}
}

// Stop does not wait for the handlers of partitions that move: the router bounds their time. What they settle is
// committed, and does not come to the new process.
func TestStopWhilePartitionsMove(t *testing.T) {
	t.Parallel()
	cfg := kafka.Config{Prefix: unique(), RevokeWait: time.Minute}
	one, two := open(t, url, cfg), open(t, url, cfg)
	s := subscribe(t, one, "g", 100, "t")
	publish(t, one, 50)
	var held []messaging.Delivery
	for range 50 {
		held = append(held, receive(t, s))
	}
	next := subscribe(t, two, "g", 100, "t")
	rest(t, next, 2*time.Second, map[string]int{}) // for the partitions to be asked for
	begin := time.Now()
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took > closing {
		t.Errorf("Stop took %v", took)
	}
	for _, d := range held {
		if err := d.Ack(t.Context()); err != nil {
			t.Fatalf("%s: %v", d.Envelope().ID, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	publish(t, two, 1)
	again := map[string]int{}
	for end := time.Now().Add(patience); len(again) == 0 && time.Now().Before(end); {
		rest(t, next, 200*time.Millisecond, again)
	}
	if len(again) != 1 || again["0"] != 1 {
		t.Errorf("got %v in the other process, want the new message alone", again)
	}
}

// A rebalance leaves a member the time for its handlers and its last commit, and little more: the group waits for all
// of it where a process was killed.
func TestRebalanceTimeout(t *testing.T) {
	t.Parallel()
	for _, wait := range []time.Duration{-1, 0, time.Second, time.Minute} {
		t.Run(wait.String(), func(t *testing.T) {
			t.Parallel()
			c, err := kfake.NewCluster(kfake.NumBrokers(1))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(c.Close)
			asked := make(chan time.Duration, 1)
			c.ControlKey(int16(kmsg.JoinGroup), func(req kmsg.Request) (kmsg.Response, error, bool) {
				asked <- time.Duration(req.(*kmsg.JoinGroupRequest).RebalanceTimeoutMillis) * time.Millisecond
				return nil, nil, false
			})
			subscribe(t, open(t, urlOf(c), kafka.Config{RevokeWait: wait, SessionTimeout: 45 * time.Second}), "g", 1, "t")
			least := max(wait, 0) + 5*time.Second
			if wait == 0 {
				least += 10 * time.Second
			}
			if got := <-asked; got < least || got > least+6*time.Second {
				t.Errorf("RevokeWait %v: the group waits for %v, want %v to %v", wait, got, least, least+6*time.Second)
			}
		})
	}
}
