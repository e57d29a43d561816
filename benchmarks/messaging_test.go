package benchmarks

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	watermillamqp "github.com/ThreeDotsLabs/watermill-amqp/v3/pkg/amqp"
	"github.com/ThreeDotsLabs/watermill/message"
	amqp "github.com/rabbitmq/amqp091-go"
	wagslane "github.com/wagslane/go-rabbitmq"

	"github.com/sillar-go/sillar/messaging"
)

const topic = "t"

// plain is a message as a program without this library would send it.
func plain(body []byte) amqp.Publishing {
	return amqp.Publishing{DeliveryMode: amqp.Persistent, ContentType: "application/json", Body: body}
}

// full is the message that this library makes of the same body.
func full(body []byte) amqp.Publishing {
	const id, now = "01980000-0000-7000-8000-000000000000", "2026-01-02T03:04:05.123456789Z"
	return amqp.Publishing{DeliveryMode: amqp.Persistent, ContentType: "application/json", Body: body, MessageId: id,
		Timestamp: time.Now(),
		Headers: amqp.Table{"cloudEvents_specversion": "1.0", "cloudEvents_id": id, "cloudEvents_type": topic,
			"cloudEvents_source": "bench", "cloudEvents_time": now}}
}

var raws = []struct {
	name      string
	mandatory bool
	msg       func([]byte) amqp.Publishing
}{{"raw", false, plain}, {"raw-same-headers", true, full}}

// eachOf publishes b.N messages from 100 goroutines.
func eachOf(b *testing.B, publish func() error) {
	b.Helper()
	var wg sync.WaitGroup
	b.ResetTimer()
	for w := range 100 {
		wg.Go(func() {
			for i := w; i < b.N; i += 100 {
				if err := publish(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
}

// BenchmarkMessagingPublish100 publishes 1 KiB, persistent and confirmed, from 100 goroutines.
func BenchmarkMessagingPublish100(b *testing.B) {
	body := make([]byte, 1<<10)
	b.Run("sillar", func(b *testing.B) {
		broker := newPlace(b).sillar(b)
		eachOf(b, func() error { return broker.Publish(context.Background(), topic, body) })
	})
	for _, r := range raws {
		b.Run(r.name, func(b *testing.B) {
			p := newPlace(b).bind(b)
			if err := p.ch.Confirm(false); err != nil {
				b.Fatal(err)
			}
			eachOf(b, func() error {
				d, err := p.ch.PublishWithDeferredConfirm(p.exchange, topic, r.mandatory, false, r.msg(body))
				if err == nil && !d.Wait() {
					err = io.ErrUnexpectedEOF
				}
				return err
			})
		})
	}
	b.Run("watermill", func(b *testing.B) {
		pub := newPlace(b).bind(b).watermill(b, 100)
		eachOf(b, func() error { return pub.Publish(topic, message.NewMessage(watermill.NewUUID(), body)) })
	})
	b.Run("wagslane", func(b *testing.B) {
		publish := newPlace(b).bind(b).wagslanePublish(b)
		eachOf(b, func() error {
			d, err := publish(body)
			if err == nil && !d[0].Wait() {
				err = io.ErrUnexpectedEOF
			}
			return err
		})
	})
}

const batch = 1000

// BenchmarkMessagingBatch1000 publishes 1,000 messages from one goroutine, as fast as confirms allow. An operation is
// the batch.
func BenchmarkMessagingBatch1000(b *testing.B) {
	body := make([]byte, 1<<10)
	b.Run("sillar", func(b *testing.B) {
		broker := newPlace(b).sillar(b)
		for b.Loop() {
			events := make([]messaging.Envelope, batch)
			for i := range events {
				events[i] = messaging.Envelope{Type: topic, Body: body}
			}
			if err := broker.PublishBatch(context.Background(), events); err != nil {
				b.Fatal(err)
			}
		}
	})
	for _, r := range raws {
		b.Run(r.name, func(b *testing.B) {
			p := newPlace(b).bind(b)
			if err := p.ch.Confirm(false); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				var all [batch]*amqp.DeferredConfirmation
				for i := range all {
					var err error
					if all[i], err = p.ch.PublishWithDeferredConfirm(p.exchange, topic, r.mandatory, false, r.msg(body)); err != nil {
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
	}
	b.Run("watermill", func(b *testing.B) {
		pub := newPlace(b).bind(b).watermill(b, 1)
		for b.Loop() {
			all := make([]*message.Message, batch)
			for i := range all {
				all[i] = message.NewMessage(watermill.NewUUID(), body)
			}
			if err := pub.Publish(topic, all...); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("wagslane", func(b *testing.B) {
		publish := newPlace(b).bind(b).wagslanePublish(b)
		for b.Loop() {
			var all [batch]wagslane.PublisherConfirmation
			for i := range all {
				var err error
				if all[i], err = publish(body); err != nil {
					b.Fatal(err)
				}
			}
			for _, d := range all {
				if !d[0].Wait() {
					b.Fatal("not confirmed")
				}
			}
		}
	})
}

// BenchmarkMessagingConsume500 takes b.N messages of 1 KiB from a queue and acknowledges each, at a prefetch of 500.
func BenchmarkMessagingConsume500(b *testing.B) {
	body := make([]byte, 1<<10)
	b.Run("sillar", func(b *testing.B) {
		p := newPlace(b)
		broker := p.sillar(b)
		p.fill(b, full(body))
		s, err := broker.Subscribe(context.Background(), messaging.Subscription{Group: p.queue, Patterns: []string{topic},
			Prefetch: 500})
		if err != nil {
			b.Fatal(err)
		}
		for range b.N {
			d, err := s.Receive(context.Background())
			if err != nil {
				b.Fatal(err)
			}
			if err := d.Ack(context.Background()); err != nil {
				b.Fatal(err)
			}
		}
		b.StopTimer()
		_ = s.Close()
	})
	b.Run("sillar-router", func(b *testing.B) {
		p := newPlace(b)
		broker := p.sillar(b)
		p.fill(b, full(body))
		ctx, stop := context.WithCancel(context.Background())
		r := messaging.Must(messaging.NewRouter(broker, messaging.RouterConfig{Logger: slog.New(slog.DiscardHandler)}))
		n := 0
		messaging.HandleRaw(r.Group(p.queue, messaging.GroupConfig{Prefetch: 500}), topic,
			func(context.Context, messaging.Message[[]byte]) error {
				if n++; n == b.N {
					b.StopTimer()
					stop()
				}
				return nil
			})
		if err := r.Run(ctx); err != nil {
			b.Fatal(err)
		}
	})
	for _, r := range raws {
		b.Run(r.name, func(b *testing.B) {
			p := newPlace(b).bind(b)
			p.fill(b, r.msg(body))
			if err := p.ch.Qos(500, 0, false); err != nil {
				b.Fatal(err)
			}
			deliveries, err := p.ch.Consume(p.queue, "", false, false, false, false, nil)
			if err != nil {
				b.Fatal(err)
			}
			for range b.N {
				d := <-deliveries
				if err := d.Ack(false); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
		})
	}
	b.Run("watermill", func(b *testing.B) {
		p := newPlace(b).bind(b)
		msg := plain(body)
		msg.Headers = amqp.Table{watermillamqp.DefaultMessageUUIDHeaderKey: "01980000-0000-7000-8000-000000000000"}
		p.fill(b, msg)
		sub, err := watermillamqp.NewSubscriber(p.watermillConfig(1), watermill.NopLogger{})
		if err != nil {
			b.Fatal(err)
		}
		messages, err := sub.Subscribe(context.Background(), topic)
		if err != nil {
			b.Fatal(err)
		}
		for range b.N {
			(<-messages).Ack()
		}
		b.StopTimer()
		_ = sub.Close()
	})
	b.Run("wagslane", func(b *testing.B) {
		p := newPlace(b).bind(b)
		c := p.wagslane(b)
		p.fill(b, plain(body))
		consumer, err := wagslane.NewConsumer(c, p.queue, wagslane.WithConsumerOptionsQueueNoDeclare,
			wagslane.WithConsumerOptionsQOSPrefetch(500), wagslane.WithConsumerOptionsLogger(silent{}))
		if err != nil {
			b.Fatal(err)
		}
		done, n := make(chan struct{}), 0
		go func() {
			_ = consumer.Run(func(wagslane.Delivery) wagslane.Action {
				if n++; n == b.N {
					close(done)
				}
				return wagslane.Ack
			})
		}()
		<-done
		b.StopTimer()
		consumer.Close()
	})
}
