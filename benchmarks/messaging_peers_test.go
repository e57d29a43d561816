package benchmarks

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	watermillamqp "github.com/ThreeDotsLabs/watermill-amqp/v3/pkg/amqp"
	amqp "github.com/rabbitmq/amqp091-go"
	wagslane "github.com/wagslane/go-rabbitmq"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/rabbitmq"
)

// place is an exchange and a quorum queue of a benchmark's own, which every contestant finds made.
type place struct {
	url, exchange, queue string
	ch                   *amqp.Channel
}

func newPlace(b *testing.B) place {
	b.Helper()
	p := place{url: os.Getenv("SILLAR_RABBITMQ_URL")}
	if p.url == "" {
		b.Skip("no RabbitMQ: run `tools/services up`, then `eval \"$(tools/services env)\"`")
	}
	name := fmt.Sprintf("bench_%d", time.Now().UnixNano())
	p.exchange, p.queue = name, name
	c, err := amqp.Dial(p.url)
	if err != nil {
		b.Fatal("RabbitMQ does not answer")
	}
	if p.ch, err = c.Channel(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		for _, q := range []string{p.queue, p.queue + ".dead"} {
			_, _ = p.ch.QueueDelete(q, false, false, false)
		}
		_ = p.ch.ExchangeDelete(p.exchange, false, false)
		_ = c.Close()
	})
	if err := p.ch.ExchangeDeclare(p.exchange, "topic", true, false, false, false, nil); err != nil {
		b.Fatal(err)
	}
	return p
}

// bind makes the queue as a program without this library would.
func (p place) bind(b *testing.B) place {
	b.Helper()
	if _, err := p.ch.QueueDeclare(p.queue, true, false, false, false, amqp.Table{"x-queue-type": "quorum"}); err != nil {
		b.Fatal(err)
	}
	if err := p.ch.QueueBind(p.queue, topic, p.exchange, false, nil); err != nil {
		b.Fatal(err)
	}
	return p
}

// sillar makes a broker of this library, and the queue as it declares it.
func (p place) sillar(b *testing.B) *rabbitmq.Broker {
	b.Helper()
	broker := rabbitmq.Must(rabbitmq.New(p.url, rabbitmq.Config{Source: "bench", Exchange: p.exchange,
		Logger: slog.New(slog.DiscardHandler)}))
	b.Cleanup(func() { _ = broker.Close() })
	s, err := broker.Subscribe(context.Background(), messaging.Subscription{Group: p.queue, Patterns: []string{topic}})
	if err != nil {
		b.Fatal(err)
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	return broker
}

func (p place) watermill(b *testing.B, channels int) *watermillamqp.Publisher {
	b.Helper()
	pub, err := watermillamqp.NewPublisher(p.watermillConfig(channels), watermill.NopLogger{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = pub.Close() })
	return pub
}

func (p place) watermillConfig(channels int) watermillamqp.Config {
	cfg := watermillamqp.NewDurablePubSubConfig(p.url, watermillamqp.GenerateQueueNameConstant(p.queue))
	cfg.Exchange.GenerateName, cfg.Exchange.Type = watermillamqp.GenerateExchangeNameConstant(p.exchange), "topic"
	cfg.Publish.GenerateRoutingKey = func(string) string { return topic }
	cfg.QueueBind.GenerateRoutingKey = cfg.Publish.GenerateRoutingKey
	cfg.Publish.ConfirmDelivery, cfg.Publish.ChannelPoolSize = true, channels
	cfg.Queue.Arguments = amqp.Table{"x-queue-type": "quorum"}
	cfg.Consume.Qos.PrefetchCount = 500
	return cfg
}

type silent struct{}

func (silent) Fatalf(string, ...any) {}

func (silent) Errorf(string, ...any) {}

func (silent) Warnf(string, ...any) {}

func (silent) Infof(string, ...any) {}

func (silent) Debugf(string, ...any) {}

func (p place) wagslane(b *testing.B) *wagslane.Conn {
	b.Helper()
	c, err := wagslane.NewConn(p.url, wagslane.WithConnectionOptionsLogger(silent{}))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Close() })
	return c
}

func (p place) wagslanePublish(b *testing.B) func(body []byte) (wagslane.PublisherConfirmation, error) {
	b.Helper()
	pub, err := wagslane.NewPublisher(p.wagslane(b), wagslane.WithPublisherOptionsConfirm,
		wagslane.WithPublisherOptionsLogger(silent{}))
	if err != nil {
		b.Fatal(err)
	}
	return func(body []byte) (wagslane.PublisherConfirmation, error) {
		return pub.PublishWithDeferredConfirmWithContext(context.Background(), body, []string{topic},
			wagslane.WithPublishOptionsExchange(p.exchange),
			wagslane.WithPublishOptionsPersistentDelivery, wagslane.WithPublishOptionsContentType("application/json"))
	}
}

// fill puts b.N messages into the queue.
func (p place) fill(b *testing.B, msg amqp.Publishing) {
	b.Helper()
	if err := p.ch.Confirm(false); err != nil {
		b.Fatal(err)
	}
	var last *amqp.DeferredConfirmation
	for range b.N {
		var err error
		if last, err = p.ch.PublishWithDeferredConfirm(p.exchange, topic, true, false, msg); err != nil {
			b.Fatal(err)
		}
	}
	last.Wait()
	b.ResetTimer()
}
