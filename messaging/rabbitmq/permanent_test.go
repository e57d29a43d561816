package rabbitmq_test

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/rabbitmq"
)

// An error that only an operator can correct is returned at once and says what to do; the broker notices the
// correction.
func TestPermanentErrorsAreReturnedAtOnce(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		url  func(t *testing.T) (own string, mend func())
		want error
		says string
	}{
		"an exchange of another type": {func(t *testing.T) (string, func()) {
			own := testenv.RabbitMQ(t)
			op := raw(t, own)
			if err := op.ExchangeDeclare("microservices", "fanout", true, false, false, false, nil); err != nil {
				t.Fatal(err)
			}
			return own, func() {
				if err := op.ExchangeDelete("microservices", false, false); err != nil {
					t.Fatal(err)
				}
			}
		}, rabbitmq.ErrTopology, "delete"},
		"no permission to configure": {func(t *testing.T) (string, func()) {
			own := testenv.RabbitMQ(t)
			testenv.Permissions(t, own, "", ".*", ".*")
			return own, func() { testenv.Permissions(t, own, ".*", ".*", ".*") }
		}, rabbitmq.ErrPermission, "Passive"},
		"a wrong password": {func(t *testing.T) (string, func()) {
			u, _ := url.Parse(testenv.RabbitMQ(t))
			u.User = url.UserPassword(u.User.Username(), "wrong")
			return u.String(), nil
		}, rabbitmq.ErrPermission, "password"},
		"a vhost that is not there": {func(t *testing.T) (string, func()) {
			u, _ := url.Parse(testenv.RabbitMQ(t))
			u.Path = "/nowhere"
			return u.String(), nil
		}, rabbitmq.ErrPermission, "vhost"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			own, mend := c.url(t)
			b := open(t, own, rabbitmq.Config{Reconnect: messaging.Constant(500 * time.Millisecond)})
			start := time.Now()
			sub := messaging.Subscription{Group: "g", Patterns: []string{"t"}}
			_, err := b.Subscribe(t.Context(), sub)
			for what, err := range map[string]error{
				"Publish": b.Publish(t.Context(), "t", 1), "Health": b.Health(t.Context()), "Subscribe": err,
				"PublishBatch": b.PublishBatch(t.Context(), []messaging.Envelope{{Type: "t"}}),
			} {
				if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
					t.Errorf("%s: %v", what, err)
				}
			}
			r := messaging.Must(messaging.NewRouter(b, messaging.RouterConfig{Logger: quiet}))
			messaging.HandleRaw(r.Group("g", messaging.GroupConfig{}), "t",
				func(context.Context, messaging.Message[[]byte]) error {
					return nil
				})
			if err := r.Run(within(t, 10*time.Second)); !errors.Is(err, c.want) {
				t.Errorf("Run: %v", err)
			}
			if d := time.Since(start); d > 10*time.Second {
				t.Errorf("it took %v", d)
			}
			if mend == nil {
				return
			}
			mend()
			for end := time.Now().Add(30 * time.Second); b.Health(t.Context()) != nil && time.Now().Before(end); {
				time.Sleep(20 * time.Millisecond)
			}
			if err := subscribe(t, b, "g", 1, "t").Close(); err != nil {
				t.Error(err)
			}
			if err := b.Publish(within(t, 10*time.Second), "t", 1); err != nil {
				t.Errorf("after it was mended: %v", err)
			}
		})
	}
}

// With Passive a user without any permission to configure publishes, consumes, retries and gives up; what an operator
// has not made is named.
func TestPassiveTopology(t *testing.T) {
	t.Parallel()
	own := testenv.RabbitMQ(t)
	op := raw(t, own)
	if err := op.ExchangeDeclare("microservices", "topic", true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	queue := func(name string, args amqp.Table) {
		if _, err := op.QueueDeclare(name, true, false, false, false, args); err != nil {
			t.Fatal(err)
		}
	}
	testenv.Permissions(t, own, "", ".*", ".*")
	b := open(t, own, rabbitmq.Config{Passive: true})
	sub := messaging.Subscription{Group: "g", Patterns: []string{"t"}, Prefetch: 1}
	if _, err := b.Subscribe(within(t, 10*time.Second), sub); !errors.Is(err, rabbitmq.ErrTopology) ||
		!strings.Contains(err.Error(), "'g.dead'") {
		t.Errorf("Subscribe to queues that are not there: %v", err)
	}
	testenv.Permissions(t, own, ".*", ".*", ".*")
	queue("g", nil)
	queue("g.dead", nil)
	queue("g.retry.100ms", amqp.Table{"x-message-ttl": 100, "x-dead-letter-exchange": "",
		"x-dead-letter-routing-key": "g"})
	if err := op.QueueBind("g", "t", "microservices", false, nil); err != nil {
		t.Fatal(err)
	}
	testenv.Permissions(t, own, "", ".*", ".*")
	useTopology(t, b)
}

// useTopology publishes, retries and dead-letters over what exists.
func useTopology(t *testing.T, b *rabbitmq.Broker) {
	t.Helper()
	s := subscribe(t, b, "g", 1, "t")
	if err := b.Publish(within(t, 10*time.Second), "t", 1); err != nil {
		t.Fatal(err)
	}
	if err := receive(t, s).Retry(within(t, 10*time.Second), 100*time.Millisecond, nil); err != nil {
		t.Fatal(err)
	}
	if err := receive(t, s).Retry(within(t, 10*time.Second), time.Hour, nil); !errors.Is(err, rabbitmq.ErrTopology) ||
		!strings.Contains(err.Error(), "g.retry.1h") {
		t.Errorf("a retry whose queue is not there: %v", err)
	}
	if err := receive(t, s).DeadLetter(within(t, 10*time.Second), errors.New("x")); err != nil {
		t.Fatal(err)
	}
	if err := b.Health(t.Context()); err != nil {
		t.Errorf("Health: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// Health reports a consumer whose permission is withdrawn while it runs, and the consumer resumes when it has it again.
func TestConsumingThatIsRefusedShowsInHealth(t *testing.T) {
	t.Parallel()
	own := testenv.RabbitMQ(t)
	b := open(t, own, rabbitmq.Config{Reconnect: messaging.Constant(50 * time.Millisecond)})
	s := subscribe(t, b, "g", 1, "t")
	if err := b.Health(t.Context()); err != nil {
		t.Fatal(err)
	}
	testenv.Permissions(t, own, ".*", ".*", "")
	op := raw(t, own)
	if _, err := op.QueueDelete("g", false, false, false); err != nil {
		t.Fatal(err)
	}
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end) && !errors.Is(err, rabbitmq.ErrPermission); {
		err = b.Health(t.Context())
	}
	if !errors.Is(err, rabbitmq.ErrPermission) || !errors.Is(err, messaging.ErrBlocked) || !strings.Contains(err.Error(),
		"group g") {
		t.Errorf("Health: %v", err)
	}
	testenv.Permissions(t, own, ".*", ".*", ".*")
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end) && err != nil; {
		err = b.Health(t.Context())
	}
	if err != nil {
		t.Errorf("Health after the permission is back: %v", err)
	}
	if err := b.Publish(within(t, 10*time.Second), "t", 1); err != nil {
		t.Fatal(err)
	}
	if err := receive(t, s).Ack(t.Context()); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
