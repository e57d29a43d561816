package rabbitmq_test

import (
	"context"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/rabbitmq"
)

const kib = 1 << 10

// rawQueue is a channel in confirm mode and a quorum queue bound to the exchange, without this package.
func rawQueue(b *testing.B) *amqp.Channel {
	c, err := amqp.Dial(testenv.RabbitMQ(b))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Close() })
	ch, err := c.Channel()
	if err != nil {
		b.Fatal(err)
	}
	if err := ch.ExchangeDeclare("microservices", "topic", true, false, false, false, nil); err != nil {
		b.Fatal(err)
	}
	if _, err := ch.QueueDeclare("g", true, false, false, false, amqp.Table{"x-queue-type": "quorum"}); err != nil {
		b.Fatal(err)
	}
	if err := ch.QueueBind("g", "t", "microservices", false, nil); err != nil {
		b.Fatal(err)
	}
	if err := ch.Confirm(false); err != nil {
		b.Fatal(err)
	}
	return ch
}

func ours(b *testing.B) *rabbitmq.Broker {
	broker := rabbitmq.Must(testenv.RabbitMQ(b), rabbitmq.Config{Source: "bench", Logger: quiet})
	b.Cleanup(func() { _ = broker.Close() })
	s, err := broker.Subscribe(b.Context(), messaging.Subscription{Group: "g", Patterns: []string{"t"}})
	if err != nil {
		b.Fatal(err)
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	return broker
}

// rawPublishing is the message that the broker makes of the same body: the comparison is of the clients.
func rawPublishing(body []byte) amqp.Publishing {
	const id, now = "01980000-0000-7000-8000-000000000000", "2026-01-02T03:04:05.123456789Z"
	return amqp.Publishing{DeliveryMode: amqp.Persistent, ContentType: "application/json", Body: body, MessageId: id, Timestamp: time.Now(),
		Type: "t", AppId: "bench", Headers: amqp.Table{"cloudEvents_specversion": "1.0", "cloudEvents_id": id, "cloudEvents_type": "t",
			"cloudEvents_source": "bench", "cloudEvents_time": now}}
}

func BenchmarkPublish100(b *testing.B) {
	body := make([]byte, kib)
	b.Run("raw", func(b *testing.B) {
		ch := rawQueue(b)
		b.SetParallelism(50) // of GOMAXPROCS=2: 100 goroutines
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				d, err := ch.PublishWithDeferredConfirm("microservices", "t", true, false, rawPublishing(body))
				if err != nil || !d.Wait() {
					b.Error(err)
				}
			}
		})
	})
	b.Run("sillar", func(b *testing.B) {
		broker := ours(b)
		b.SetParallelism(50)
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if err := broker.Publish(context.Background(), "t", body); err != nil {
					b.Error(err)
				}
			}
		})
	})
}

func BenchmarkBatch1000(b *testing.B) {
	body := make([]byte, kib)
	b.Run("raw", func(b *testing.B) {
		ch := rawQueue(b)
		for b.Loop() {
			var all [1000]*amqp.DeferredConfirmation
			for i := range all {
				var err error
				if all[i], err = ch.PublishWithDeferredConfirm("microservices", "t", true, false, rawPublishing(body)); err != nil {
					b.Fatal(err)
				}
			}
			for _, d := range all {
				if !d.Wait() {
					b.Fatal("not confirmed")
				}
			}
		}
	})
	b.Run("sillar", func(b *testing.B) {
		broker := ours(b)
		for b.Loop() {
			events := make([]messaging.Envelope, 1000)
			for i := range events {
				events[i] = messaging.Envelope{Type: "t", Body: body}
			}
			if err := broker.PublishBatch(context.Background(), events); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkConsume500(b *testing.B) {
	body := make([]byte, kib)
	b.Run("raw", func(b *testing.B) {
		ch := rawQueue(b)
		for range b.N {
			if _, err := ch.PublishWithDeferredConfirm("microservices", "t", true, false, rawPublishing(body)); err != nil {
				b.Fatal(err)
			}
		}
		if err := ch.Qos(500, 0, false); err != nil {
			b.Fatal(err)
		}
		b.ResetTimer()
		deliveries, err := ch.Consume("g", "", false, false, false, false, nil)
		if err != nil {
			b.Fatal(err)
		}
		for range b.N {
			d := <-deliveries
			if err := d.Ack(false); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("sillar", func(b *testing.B) {
		broker := ours(b)
		events := make([]messaging.Envelope, b.N)
		for i := range events {
			events[i] = messaging.Envelope{Type: "t", Body: body}
		}
		if err := broker.PublishBatch(context.Background(), events); err != nil {
			b.Fatal(err)
		}
		b.ResetTimer()
		s, err := broker.Subscribe(b.Context(), messaging.Subscription{Group: "g", Patterns: []string{"t"}, Prefetch: 500})
		if err != nil {
			b.Fatal(err)
		}
		for range b.N {
			d, err := s.Receive(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			if err := d.Ack(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
		b.StopTimer()
		_ = s.Close()
	})
}
