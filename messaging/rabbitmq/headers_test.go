package rabbitmq_test

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/rabbitmq"
)

// publishRaw publishes like a program that does not use this package.
func publishRaw(t *testing.T, url, topic string, headers ...amqp.Table) {
	t.Helper()
	ch := raw(t, url)
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		msg := amqp.Publishing{Headers: h, DeliveryMode: amqp.Persistent, Body: []byte("1")}
		d, err := ch.PublishWithDeferredConfirm("microservices", topic, false, false, msg)
		if err != nil || !d.Wait() {
			t.Fatal("not confirmed: ", err)
		}
	}
}

// Headers that fill a frame leave no room for those that a retry or a dead letter adds: the message becomes a dead
// letter all the same, and costs no connection, which would come to an end with each attempt. As many of the headers
// are kept as fit.
func TestHeadersFillTheFrame(t *testing.T) {
	t.Parallel()
	url := testenv.RabbitMQ(t)
	var said log
	b := open(t, url, rabbitmq.Config{Logger: slog.New(slog.NewTextHandler(&said, nil))})
	r := messaging.Must(messaging.NewRouter(b, messaging.RouterConfig{Logger: slog.New(slog.DiscardHandler)}))
	g := r.Group("full", messaging.GroupConfig{Retry: messaging.Retry{Attempts: 2}})
	long := errors.New(strings.Repeat("r", 4000))
	messaging.HandleRaw(g, "full", func(context.Context, messaging.Message[[]byte]) error {
		return messaging.RetryAfter(long, 0)
	})
	subscribe(t, b, "full", 1, "full").Close()
	var headers []amqp.Table
	for _, size := range []int{100_000, 125_000, 127_000, 129_500, 130_500, 130_700, 130_800, 130_850, 130_900, 130_950,
		131_000} {
		headers = append(headers, amqp.Table{"big": strings.Repeat("x", size)})
	}
	publishRaw(t, url, "full", headers...)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	var dead []messaging.DeadLetter
	for end := time.Now().Add(20 * time.Second); len(dead) < len(headers); time.Sleep(20 * time.Millisecond) {
		var err error
		if dead, err = b.DeadLetters(within(t, 5*time.Second), "full", 100); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(end) {
			t.Fatalf("%d dead letters, want %d; %d connections were lost", len(dead), len(headers),
				strings.Count(said.String(), "connection was lost"))
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	whole, shortened := 0, 0
	for _, d := range dead {
		if len(d.Headers["big"]) >= 100_000 {
			whole++
		}
		if d.Reason != long.Error() {
			shortened++
		}
	}
	lost, dropped := strings.Count(said.String(), "connection was lost"), strings.Count(said.String(), "loses headers")
	if whole < 4 || whole+dropped != len(headers) || shortened == 0 || shortened == len(headers) || lost != 0 {
		t.Errorf("%d of %d are whole, %d report lost headers, %d have a shorter reason or another, %d connections "+
			"were lost", whole, len(headers), dropped, shortened, lost)
	}
	if n, err := b.Redrive(within(t, 10*time.Second), "full", 100); n != len(headers) || err != nil {
		t.Errorf("%d were given to the group again, %v", n, err)
	}
}

// How often a message was tried is what its publisher says, within reason.
func TestHostileAttempts(t *testing.T) {
	t.Parallel()
	url := testenv.RabbitMQ(t)
	s := subscribe(t, open(t, url, rabbitmq.Config{}), "g", 10, "a")
	for _, v := range []any{int64(math.MaxInt64), "9223372036854775807", int64(-1), "x", 1.5} {
		publishRaw(t, url, "a", amqp.Table{"x-sillar-attempts": v})
		d, err := s.Receive(within(t, 10*time.Second))
		if err != nil || d.Attempt() < 1 || d.Ack(t.Context()) != nil {
			t.Errorf("%v: attempt %d, %v", v, d.Attempt(), err)
		}
	}
}
