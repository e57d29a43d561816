package rabbitmq_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/rabbitmq"
)

// The connection is cut at the publish, at its confirm and at the acknowledgement of a batch while dead letters are
// given back: each comes, whole, at least once, and none is left behind.
func TestRedriveIsCut(t *testing.T) {
	t.Parallel()
	for _, at := range []struct {
		window
		times int
	}{{window{"publish", false, 60<<16 | 40}, 20}, {window{"confirm", true, 60<<16 | 80}, 3},
		{window{"ack", false, 60<<16 | 80}, 3}} {
		t.Run(at.name, func(t *testing.T) { redriveIsCut(t, at.window, at.times) })
	}
}

func redriveIsCut(t *testing.T, at window, times int) {
	t.Helper()
	t.Parallel()
	via, _, p := through(t)
	c := &cutter{}
	p.Filter(c.filter)
	b := open(t, via, rabbitmq.Config{Reconnect: messaging.Exponential(2*time.Millisecond, 25*time.Millisecond),
		ReportUnknown: true})
	const n = 200
	s := subscribe(t, b, "g", n, "t")
	events := make([]messaging.Envelope, n)
	for i := range events {
		events[i] = messaging.Envelope{ID: fmt.Sprint(i), Type: "t", Key: "k", Headers: map[string]string{"x-tenant": "blue"},
			Body: []byte("{}")}
	}
	if err := b.PublishBatch(t.Context(), events); err != nil {
		t.Fatal(err)
	}
	for range n {
		if err := receive(t, s).DeadLetter(t.Context(), errors.New("broken")); err != nil {
			t.Fatal(err)
		}
	}
	c.arm(at, times)
	moved, failures := 0, 0
	for end := time.Now().Add(patience); ; {
		if time.Now().After(end) {
			t.Fatalf("%d moved in %v", moved, patience)
		}
		m, err := b.Redrive(within(t, 20*time.Second), "g", n)
		if moved += m; err != nil {
			failures++
			continue
		}
		if dead, err := b.DeadLetters(within(t, 20*time.Second), "g", 1); err == nil && len(dead) == 0 {
			break
		}
	}
	got := map[string]bool{}
	for len(got) < n {
		d := receive(t, s)
		e := d.Envelope()
		if e.Headers["x-tenant"] != "blue" || e.Key != "k" || string(e.Body) != "{}" || d.Attempt() != 1 {
			t.Fatalf("attempt %d of %+v", d.Attempt(), e)
		}
		if err := d.Ack(t.Context()); err == nil {
			got[e.ID] = true
		}
	}
	if failures == 0 || c.armed() > 0 {
		t.Error("too few redrives were cut")
	}
	t.Logf("%d moved, %d redrives were cut", moved, failures)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// A stranger's message that the server has given up by itself is still of its topic: its handler gets it again.
func TestRedriveOfAStrangers(t *testing.T) {
	t.Parallel()
	url := testenv.RabbitMQ(t)
	b := open(t, url, rabbitmq.Config{})
	if err := subscribe(t, b, "g", 1, "strange.topic").Close(); err != nil {
		t.Fatal(err)
	}
	publishRaw(t, url, "strange.topic", amqp.Table{})
	c, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	ch, err := c.Channel()
	if err != nil {
		t.Fatal(err)
	}
	got := false
	for end := time.Now().Add(30 * time.Second); !got && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		var d amqp.Delivery
		if d, got, err = ch.Get("g", false); err != nil || got && d.Reject(false) != nil {
			t.Fatal(err)
		}
	}
	var dead []messaging.DeadLetter
	for end := time.Now().Add(30 * time.Second); len(dead) == 0 &&
		time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if dead, err = b.DeadLetters(within(t, 5*time.Second), "g", 10); err != nil {
			t.Fatal(err)
		}
	}
	if len(dead) != 1 || dead[0].Type != "strange.topic" || dead[0].Reason != "the server gave it up: rejected" {
		t.Fatalf("dead letters: %+v", dead)
	}
	if n, err := b.Redrive(within(t, 10*time.Second), "g", 10); n != 1 || err != nil {
		t.Fatalf("%d moved, %v", n, err)
	}
	s := subscribe(t, b, "g", 1, "strange.topic")
	if d := receive(t, s); d.Envelope().Type != "strange.topic" || d.Ack(t.Context()) != nil {
		t.Errorf("it came as %q", d.Envelope().Type)
	}
}

// An id is unique within its source only: letters of many sources that have one id are all moved.
func TestRedriveMovesLettersOfTwoSourcesWithOneID(t *testing.T) {
	t.Parallel()
	b := open(t, testenv.RabbitMQ(t), rabbitmq.Config{})
	const n = 10
	s := subscribe(t, b, "g", n, "t")
	for i := range n {
		e := messaging.Envelope{ID: fmt.Sprint(i / 4), Source: fmt.Sprint("source-", i%2), Type: "t", Body: []byte("{}")}
		if err := b.PublishBatch(t.Context(), []messaging.Envelope{e}); err != nil {
			t.Fatal(err)
		}
		if err := receive(t, s).DeadLetter(t.Context(), errors.New("broken")); err != nil {
			t.Fatal(err)
		}
	}
	moved := 0
	for end := time.Now().Add(patience); moved == 0 && time.Now().Before(end); {
		m, err := b.Redrive(within(t, 20*time.Second), "g", 100)
		if err != nil {
			t.Fatal(err)
		}
		moved += m
	}
	if moved != n {
		t.Errorf("moved %d in one call, want %d", moved, n)
	}
	for range n {
		if err := receive(t, s).Ack(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// A CloudEvent of another program, whose type is not its routing key, is dispatched by the key: at first, after a
// retry, and after Redrive.
func TestTopicIsTheRoutingKeyOnEveryPath(t *testing.T) {
	t.Parallel()
	url := testenv.RabbitMQ(t)
	b := open(t, url, rabbitmq.Config{})
	s := subscribe(t, b, "g", 1, "orders.created")
	publishRaw(t, url, "orders.created", amqp.Table{"cloudEvents_type": "com.acme.order.created.v1"})
	want := func(d messaging.Delivery) messaging.Delivery {
		t.Helper()
		if got := d.Envelope().Type; got != "orders.created" {
			t.Fatalf("got topic %q, want orders.created", got)
		}
		return d
	}
	for _, delay := range []time.Duration{0, time.Millisecond} {
		if err := want(receive(t, s)).Retry(t.Context(), delay, errors.New("later")); err != nil {
			t.Fatal(err)
		}
	}
	if err := want(receive(t, s)).DeadLetter(t.Context(), errors.New("broken")); err != nil {
		t.Fatal(err)
	}
	for n, end := 0, time.Now().Add(patience); n == 0 && time.Now().Before(end); {
		var err error
		if n, err = b.Redrive(within(t, 10*time.Second), "g", 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := want(receive(t, s)).Ack(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// die publishes n messages with the ids 0 to n-1 and makes dead letters of them.
func die(t *testing.T, b *rabbitmq.Broker, group string, n int) {
	t.Helper()
	s := subscribe(t, b, group, n, "t")
	events := make([]messaging.Envelope, n)
	for i := range events {
		events[i] = messaging.Envelope{ID: fmt.Sprint(i), Type: "t", Body: []byte("{}")}
	}
	if err := b.PublishBatch(t.Context(), events); err != nil {
		t.Fatal(err)
	}
	for range n {
		if err := receive(t, s).DeadLetter(t.Context(), errors.New("broken")); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// Letters are moved in batches, in their order, up to the limit exactly; the others keep their places.
func TestRedriveMovesBatches(t *testing.T) {
	t.Parallel()
	via, direct, p := through(t)
	die(t, open(t, direct, rabbitmq.Config{}), "g", 250)
	c := &cutter{}
	acks := 0 // read when the broker is closed
	c.operator = func() { acks++ }
	c.arm(window{"ack", false, 60<<16 | 80}, 1000)
	p.Filter(c.filter)
	b := rabbitmq.Must(rabbitmq.New(via, rabbitmq.Config{Source: "test", Logger: quiet}))
	if n, err := b.Redrive(within(t, patience), "g", 130); n != 130 || err != nil {
		t.Fatalf("%d moved, %v; want 130", n, err)
	}
	var dead []messaging.DeadLetter
	for end := time.Now().Add(patience); len(dead) != 120 && time.Now().Before(end); {
		var err error
		if dead, err = b.DeadLetters(within(t, patience), "g", 1000); err != nil {
			t.Fatal(err)
		}
	}
	for i, d := range dead {
		if want := fmt.Sprint(130 + i); d.ID != want {
			t.Fatalf("letter %d that is left is %s, want %s", i, d.ID, want)
		}
	}
	if len(dead) != 120 {
		t.Errorf("%d letters are left, want 120", len(dead))
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if acks > 2 {
		t.Errorf("130 letters took %d acknowledgements, want one a batch", acks)
	}
	s := subscribe(t, open(t, direct, rabbitmq.Config{}), "g", 130, "t")
	for i := range 130 {
		d := receive(t, s)
		if id := d.Envelope().ID; id != fmt.Sprint(i) {
			t.Fatalf("message %d is %s", i, id)
		}
		if err := d.Ack(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// A letter whose headers leave no room for those of a copy stays, and the others are moved.
func TestRedriveMovesTheOthers(t *testing.T) {
	t.Parallel()
	url := testenv.RabbitMQ(t)
	b := open(t, url, rabbitmq.Config{})
	if err := subscribe(t, b, "g", 1, "t").Close(); err != nil {
		t.Fatal(err)
	}
	ch := raw(t, url)
	const largest = 128<<10 - 100 // of the default frame
	for i := range 5 {
		h := amqp.Table{}
		if i == 1 {
			h["x-huge"] = strings.Repeat("x", largest)
		}
		if err := ch.Publish("", "g.dead", false, false, amqp.Publishing{MessageId: fmt.Sprint(i), Headers: h}); err != nil {
			t.Fatal(err)
		}
	}
	moved := 0
	for end := time.Now().Add(patience); moved < 4 && time.Now().Before(end); {
		n, err := b.Redrive(within(t, patience), "g", 10)
		if moved += n; err != nil && !errors.Is(err, messaging.ErrInvalid) {
			t.Fatal(err)
		}
	}
	dead, err := b.DeadLetters(within(t, patience), "g", 10)
	for end := time.Now().Add(patience); err == nil && len(dead) == 0 && time.Now().Before(end); {
		dead, err = b.DeadLetters(within(t, patience), "g", 10)
	}
	if moved != 4 || err != nil || len(dead) != 1 || dead[0].ID != "1" {
		t.Errorf("%d moved, %d left, %v; want 4 and 1", moved, len(dead), err)
	}
}
