package benchmarks

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	watermillkafka "github.com/ThreeDotsLabs/watermill-kafka/v3/pkg/kafka"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/kafka"
)

// kafkaPlace is a broker in this process (kfake), with a topic and a group as this library makes them.
type kafkaPlace struct {
	seeds  []string
	topic  string
	broker *kafka.Broker
	cl     *kgo.Client
}

func newKafkaPlace(b *testing.B) kafkaPlace {
	b.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(c.Close)
	p := kafkaPlace{seeds: c.ListenAddrs(), topic: "microservices." + topic[:strings.Index(topic+".", ".")]}
	p.broker = kafka.Must(kafka.New("kafka://"+strings.Join(p.seeds, ","), kafka.Config{Source: "bench",
		Logger: slog.New(slog.DiscardHandler)}))
	b.Cleanup(func() { _ = p.broker.Close() })
	s, err := p.broker.Subscribe(b.Context(), messaging.Subscription{Group: "g", Patterns: []string{topic}})
	if err != nil {
		b.Fatal(err)
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	p.cl, err = kgo.NewClient(kgo.SeedBrokers(p.seeds...), kgo.ProducerLinger(0))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(p.cl.Close)
	return p
}

// plain is a record as a program without this library would send it.
func (p kafkaPlace) plain(body []byte) *kgo.Record { return &kgo.Record{Topic: p.topic, Value: body} }

// full is the record that this library makes of the same body. Its id is one that no other process makes, as an event's
// has to be; one that counts up would also be compressed better.
func (p kafkaPlace) full(body []byte) *kgo.Record {
	h := func(name, value string) kgo.RecordHeader { return kgo.RecordHeader{Key: name, Value: []byte(value)} }
	return &kgo.Record{Topic: p.topic, Value: body, Headers: []kgo.RecordHeader{h("ce_specversion", "1.0"),
		h("ce_id", uuid.Must(uuid.NewV7()).String()), h("ce_type", topic),
		h("ce_source", "bench"),
		h("content-type", "application/json"), h("ce_time", time.Now().UTC().Format(time.RFC3339Nano))}}
}

var kafkaRaws = []struct {
	name   string
	record func(kafkaPlace, []byte) *kgo.Record
}{{"raw", kafkaPlace.plain}, {"raw-same-headers", kafkaPlace.full}}

// watermillPublisher has one client for all, as watermill's SyncProducer waits for the confirm of each message.
func (p kafkaPlace) watermillPublisher(b *testing.B) message.Publisher {
	b.Helper()
	cfg := watermillkafka.DefaultSaramaSyncPublisherConfig()
	cfg.Producer.RequiredAcks = -1 // of all replicas in sync, as ours
	pub, err := watermillkafka.NewPublisher(watermillkafka.PublisherConfig{Brokers: p.seeds,
		Marshaler: watermillkafka.DefaultMarshaler{}, OverwriteSaramaConfig: cfg}, watermill.NopLogger{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = pub.Close() })
	return pub
}

// BenchmarkKafkaPublish100 publishes 1 KiB, confirmed, from 100 goroutines.
func BenchmarkKafkaPublish100(b *testing.B) {
	body := make([]byte, 1<<10)
	b.Run("sillar", func(b *testing.B) {
		p := newKafkaPlace(b)
		eachOf(b, func() error { return p.broker.Publish(context.Background(), topic, body) })
	})
	for _, r := range kafkaRaws {
		b.Run(r.name, func(b *testing.B) {
			p := newKafkaPlace(b)
			eachOf(b, func() error { return p.cl.ProduceSync(context.Background(), r.record(p, body)).FirstErr() })
		})
	}
	b.Run("watermill", func(b *testing.B) {
		p := newKafkaPlace(b)
		pub := p.watermillPublisher(b)
		eachOf(b, func() error { return pub.Publish(p.topic, message.NewMessage(watermill.NewUUID(), body)) })
	})
}

// BenchmarkKafkaBatch1000 publishes 1,000 messages from one goroutine. An operation is the batch.
func BenchmarkKafkaBatch1000(b *testing.B) {
	body := make([]byte, 1<<10)
	b.Run("sillar", func(b *testing.B) {
		p := newKafkaPlace(b)
		for b.Loop() {
			events := make([]messaging.Envelope, batch)
			for i := range events {
				events[i] = messaging.Envelope{Type: topic, Body: body}
			}
			if err := p.broker.PublishBatch(context.Background(), events); err != nil {
				b.Fatal(err)
			}
		}
	})
	for _, r := range kafkaRaws {
		b.Run(r.name, func(b *testing.B) {
			p := newKafkaPlace(b)
			for b.Loop() {
				p.publishAll(b, batch, func() *kgo.Record { return r.record(p, body) })
			}
		})
	}
	b.Run("watermill", func(b *testing.B) {
		p := newKafkaPlace(b)
		pub := p.watermillPublisher(b)
		for b.Loop() {
			all := make([]*message.Message, batch)
			for i := range all {
				all[i] = message.NewMessage(watermill.NewUUID(), body)
			}
			if err := pub.Publish(p.topic, all...); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// publishAll publishes n records, a thousand under way at a time.
func (p kafkaPlace) publishAll(b *testing.B, n int, record func() *kgo.Record) {
	b.Helper()
	for ; n > 0; n -= batch {
		records := make([]*kgo.Record, min(n, batch))
		for i := range records {
			records[i] = record()
		}
		if err := p.cl.ProduceSync(context.Background(), records...).FirstErr(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkKafkaConsume500 takes b.N messages of 1 KiB and settles each, at a prefetch of 500.
func BenchmarkKafkaConsume500(b *testing.B) {
	body := make([]byte, 1<<10)
	b.Run("sillar", func(b *testing.B) {
		p := newKafkaPlace(b)
		p.publishAll(b, b.N, func() *kgo.Record { return p.full(body) })
		b.ResetTimer()
		s, err := p.broker.Subscribe(context.Background(), messaging.Subscription{Group: "g", Patterns: []string{topic},
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
	for _, r := range kafkaRaws {
		b.Run(r.name, func(b *testing.B) {
			p := newKafkaPlace(b)
			p.publishAll(b, b.N, func() *kgo.Record { return r.record(p, body) })
			b.ResetTimer()
			cl, err := kgo.NewClient(kgo.SeedBrokers(p.seeds...), kgo.ConsumerGroup("raw"), kgo.ConsumeTopics(p.topic),
				kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.AutoCommitMarks(),
				kgo.AutoCommitInterval(100*time.Millisecond))
			if err != nil {
				b.Fatal(err)
			}
			for n := 0; n < b.N; {
				fetches := cl.PollRecords(context.Background(), 500)
				if err := fetches.Err(); err != nil {
					b.Fatal(err)
				}
				fetches.EachRecord(func(r *kgo.Record) {
					n++
					cl.MarkCommitRecords(r)
				})
			}
			b.StopTimer()
			cl.Close()
		})
	}
	b.Run("watermill", func(b *testing.B) {
		p := newKafkaPlace(b)
		p.publishAll(b, b.N, func() *kgo.Record {
			r := p.plain(body)
			r.Headers = []kgo.RecordHeader{{Key: watermillkafka.UUIDHeaderKey, Value: []byte(watermill.NewUUID())}}
			return r
		})
		b.ResetTimer()
		cfg := watermillkafka.DefaultSaramaSubscriberConfig()
		cfg.Consumer.Offsets.Initial = -2 // the oldest
		cfg.Consumer.Offsets.AutoCommit.Interval = 100 * time.Millisecond
		sub, err := watermillkafka.NewSubscriber(watermillkafka.SubscriberConfig{Brokers: p.seeds, ConsumerGroup: "watermill",
			Unmarshaler: watermillkafka.DefaultMarshaler{}, OverwriteSaramaConfig: cfg}, watermill.NopLogger{})
		if err != nil {
			b.Fatal(err)
		}
		messages, err := sub.Subscribe(context.Background(), p.topic)
		if err != nil {
			b.Fatal(err)
		}
		for range b.N {
			(<-messages).Ack()
		}
		b.StopTimer()
		_ = sub.Close()
	})
}
