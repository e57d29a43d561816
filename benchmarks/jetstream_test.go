package benchmarks

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	watermillnats "github.com/ThreeDotsLabs/watermill-nats/v2/pkg/nats"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/jetstream"
)

// natsPlace is a server in this process, with a stream of a benchmark's own and a group, as this library makes them.
type natsPlace struct {
	url, stream, subject string
	broker               *jetstream.Broker
	js                   natsjs.JetStream
}

var natsStreams atomic.Int64

func newNATSPlace(b *testing.B) natsPlace {
	b.Helper()
	srv, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true,
		StoreDir: b.TempDir(), NoLog: true, NoSigs: true})
	if err != nil {
		b.Fatal(err)
	}
	go srv.Start()
	b.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(10 * time.Second) {
		b.Fatal("the server is not ready")
	}
	p := natsPlace{url: srv.ClientURL(), stream: fmt.Sprint("bench", natsStreams.Add(1))}
	p.subject = p.stream + "." + topic
	p.broker = jetstream.Must(jetstream.New(p.url, jetstream.Config{Source: "bench", Stream: p.stream,
		Logger: slog.New(slog.DiscardHandler)}))
	b.Cleanup(func() { _ = p.broker.Close() })
	s, err := p.broker.Subscribe(b.Context(), messaging.Subscription{Group: "g", Patterns: []string{topic}})
	if err != nil {
		b.Fatal(err)
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	nc, err := nats.Connect(p.url)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(nc.Close)
	if p.js, err = natsjs.New(nc); err != nil {
		b.Fatal(err)
	}
	return p
}

// natsPlain is a message as a program without this library would send it.
func (p natsPlace) natsPlain(body []byte) *nats.Msg { return &nats.Msg{Subject: p.subject, Data: body} }

// natsFull is the message that this library makes of the same body.
func (p natsPlace) natsFull(body []byte) *nats.Msg {
	id := uuid.Must(uuid.NewV7()).String()
	return &nats.Msg{Subject: p.subject, Data: body, Header: nats.Header{"Nats-Msg-Id": {topic + "/bench/" + id},
		"content-type":   {"application/json"},
		"ce-specversion": {"1.0"}, "ce-id": {id}, "ce-type": {topic}, "ce-source": {"bench"},
		"ce-time": {time.Now().UTC().Format(time.RFC3339Nano)}}}
}

var natsRaws = []struct {
	name string
	msg  func(natsPlace, []byte) *nats.Msg
}{{"raw", natsPlace.natsPlain}, {"raw-same-headers", natsPlace.natsFull}}

// watermillConfig has watermill use the stream that is there, with confirms and JetStream's own pull of messages.
func (p natsPlace) watermillPublisher(b *testing.B) *watermillnats.Publisher {
	b.Helper()
	pub, err := watermillnats.NewPublisher(watermillnats.PublisherConfig{URL: p.url,
		Marshaler: &watermillnats.NATSMarshaler{},
		JetStream: watermillnats.JetStreamConfig{AutoProvision: false, TrackMsgId: true}}, watermill.NopLogger{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = pub.Close() })
	return pub
}

// BenchmarkJetStreamPublish100 publishes 1 KiB, confirmed, from 100 goroutines.
func BenchmarkJetStreamPublish100(b *testing.B) {
	body := make([]byte, 1<<10)
	b.Run("sillar", func(b *testing.B) {
		p := newNATSPlace(b)
		eachOf(b, func() error { return p.broker.Publish(context.Background(), topic, body) })
	})
	for _, r := range natsRaws {
		b.Run(r.name, func(b *testing.B) {
			p := newNATSPlace(b)
			eachOf(b, func() error {
				f, err := p.js.PublishMsgAsync(r.msg(p, body))
				if err != nil {
					return err
				}
				select {
				case <-f.Ok():
					return nil
				case err := <-f.Err():
					return err
				}
			})
		})
	}
	b.Run("watermill", func(b *testing.B) {
		p := newNATSPlace(b)
		pub := p.watermillPublisher(b)
		eachOf(b, func() error { return pub.Publish(p.subject, message.NewMessage(watermill.NewUUID(), body)) })
	})
}

// BenchmarkJetStreamBatch1000 publishes 1,000 messages from one goroutine, as fast as confirms allow. An operation is
// the batch.
func BenchmarkJetStreamBatch1000(b *testing.B) {
	body := make([]byte, 1<<10)
	b.Run("sillar", func(b *testing.B) {
		p := newNATSPlace(b)
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
	for _, r := range natsRaws {
		b.Run(r.name, func(b *testing.B) {
			p := newNATSPlace(b)
			for b.Loop() {
				p.publishAll(b, batch, func() *nats.Msg { return r.msg(p, body) })
			}
		})
	}
	b.Run("watermill", func(b *testing.B) {
		p := newNATSPlace(b)
		pub := p.watermillPublisher(b)
		for b.Loop() {
			all := make([]*message.Message, batch)
			for i := range all {
				all[i] = message.NewMessage(watermill.NewUUID(), body)
			}
			if err := pub.Publish(p.subject, all...); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// publishAll publishes n messages, a thousand under way at a time.
func (p natsPlace) publishAll(b *testing.B, n int, msg func() *nats.Msg) {
	b.Helper()
	var futures []natsjs.PubAckFuture
	wait := func() {
		for _, f := range futures {
			select {
			case <-f.Ok():
			case err := <-f.Err():
				b.Fatal(err)
			}
		}
		futures = futures[:0]
	}
	for range n {
		f, err := p.js.PublishMsgAsync(msg())
		if err != nil {
			b.Fatal(err)
		}
		if futures = append(futures, f); len(futures) == batch {
			wait()
		}
	}
	wait()
}

// BenchmarkJetStreamConsume500 takes b.N messages of 1 KiB and acknowledges each, at a prefetch of 500.
func BenchmarkJetStreamConsume500(b *testing.B) {
	body := make([]byte, 1<<10)
	b.Run("sillar", func(b *testing.B) {
		p := newNATSPlace(b)
		p.publishAll(b, b.N, func() *nats.Msg { return p.natsFull(body) })
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
	for _, r := range natsRaws {
		b.Run(r.name, func(b *testing.B) {
			p := newNATSPlace(b)
			p.publishAll(b, b.N, func() *nats.Msg { return r.msg(p, body) })
			b.ResetTimer()
			c, err := p.js.Consumer(context.Background(), p.stream, "g")
			if err != nil {
				b.Fatal(err)
			}
			it, err := c.Messages(natsjs.PullMaxMessages(500))
			if err != nil {
				b.Fatal(err)
			}
			for range b.N {
				m, err := it.Next()
				if err != nil {
					b.Fatal(err)
				}
				if err := m.Ack(); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			it.Stop()
		})
	}
	b.Run("watermill", func(b *testing.B) {
		p := newNATSPlace(b)
		p.publishAll(b, b.N, func() *nats.Msg {
			m := p.natsPlain(body)
			m.Header = nats.Header{watermillnats.WatermillUUIDHdr: {watermill.NewUUID()}}
			return m
		})
		b.ResetTimer()
		sub, err := watermillnats.NewSubscriber(watermillnats.SubscriberConfig{URL: p.url, QueueGroupPrefix: "watermill",
			Unmarshaler: &watermillnats.NATSMarshaler{}, AckWaitTimeout: 30 * time.Second,
			JetStream: watermillnats.JetStreamConfig{DurablePrefix: "watermill", AckAsync: true,
				SubscribeOptions: []nats.SubOpt{nats.DeliverAll(), nats.AckExplicit(), nats.MaxAckPending(500)}},
		}, watermill.NopLogger{})
		if err != nil {
			b.Fatal(err)
		}
		messages, err := sub.Subscribe(context.Background(), p.subject)
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
