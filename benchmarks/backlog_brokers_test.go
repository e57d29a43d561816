package benchmarks

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/outbox/mongooutbox"
	"github.com/sillar-go/sillar/messaging/rabbitmq"
	"github.com/sillar-go/sillar/repository/driver"
)

// An operation stores 20 documents with an event each, claims 20 and settles them, beside what waits or is held.
func BenchmarkMongoOutboxBacklog(b *testing.B) {
	uri := os.Getenv("SILLAR_MONGODB_URL")
	if uri == "" {
		b.Skip("no MongoDB: run `tools/services up`, then `eval \"$(tools/services env)\"`")
	}
	for _, c := range []struct {
		name string
		rows int
		held bool
	}{{"empty", 0, false}, {"waiting-100000", 100_000, false},
		{"waiting-1000000", 1_000_000, false}, {"held-100000", 100_000, true}} {
		b.Run(c.name, func(b *testing.B) {
			client, err := mongo.Connect(options.Client().ApplyURI(uri))
			if err != nil {
				b.Fatal(err)
			}
			defer client.Disconnect(context.Background())
			db := client.Database(fmt.Sprint("bench_", time.Now().UnixNano()))
			defer db.Drop(context.Background())
			box := mongooutbox.Must(mongooutbox.New(db, mongooutbox.Config{Source: "bench", Collections: []string{"docs"}}))
			if err := box.EnsureIndexes(b.Context()); err != nil {
				b.Fatal(err)
			}
			n := 0
			insert := func(count int, held bool) {
				docs := make([]any, count)
				for i := range docs {
					n++
					id := fmt.Sprint("d", n)
					doc := bson.M{"_id": id, "_effects": []driver.Effect{{ID: id, Kind: mongooutbox.Kind, Topic: "t", Key: id,
						Headers: map[string]string{}, Body: []byte("{}"), CreatedAt: time.Now()}}}
					if held {
						doc["_relay"] = bson.M{"held": true, "until": time.Now().Add(time.Hour), "attempts": 1, "owner": ""}
					}
					docs[i] = doc
				}
				if _, err := db.Collection("docs").InsertMany(b.Context(), docs); err != nil {
					b.Fatal(err)
				}
			}
			for left := c.rows; left > 0; left -= 5000 {
				insert(min(left, 5000), c.held)
			}
			for b.Loop() {
				insert(20, false)
				claimed, err := box.Claim(b.Context(), "me", 20, time.Minute)
				if err != nil || len(claimed) != 20 {
					b.Fatal(len(claimed), err)
				}
				if err := box.Done(b.Context(), "me", claimed); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// An operation publishes a message and receives it, beside nothing, beside 10,000 dead letters of another group, and
// while they are redriven. The redrives are logged.
func BenchmarkRedriveBacklog(b *testing.B) {
	const letters = 10_000
	for _, state := range []string{"none", "waiting", "redriven"} {
		b.Run(state, func(b *testing.B) {
			p := newPlace(b)
			broker := rabbitmq.Must(rabbitmq.New(p.url, rabbitmq.Config{Source: "bench", Exchange: p.exchange}))
			defer broker.Close()
			group := p.queue + "-dead"
			subscribe := func(group, topic string) messaging.Stream {
				s, err := broker.Subscribe(b.Context(), messaging.Subscription{Group: group, Patterns: []string{topic},
					Prefetch: 100})
				if err != nil {
					b.Fatal(err)
				}
				return s
			}
			_ = subscribe(group, "none").Close() // makes the queues
			stream := subscribe(p.queue+"-live", "live")
			defer stream.Close()
			if state != "none" {
				for range letters {
					if err := p.ch.Publish("", group+".dead", false, false, amqp.Publishing{DeliveryMode: amqp.Persistent,
						Headers: amqp.Table{"x-sillar-attempts": int64(5)}, Body: []byte("{}")}); err != nil {
						b.Fatal(err)
					}
				}
			}
			ctx, stop := context.WithCancel(b.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				if state != "redriven" {
					return
				}
				begin := time.Now()
				n, err := broker.Redrive(ctx, group, letters)
				b.Logf("%d letters were redriven in %v: %v", n, time.Since(begin), err)
			}()
			for b.Loop() {
				if err := broker.Publish(b.Context(), "live", 1); err != nil {
					b.Fatal(err)
				}
				d, err := stream.Receive(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				if err := d.Ack(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			if state == "redriven" && b.N >= 1000 {
				<-done // to its end
			}
			stop()
			<-done
			for _, q := range []string{group, group + ".dead", p.queue + "-live", p.queue + "-live.dead"} {
				_, _ = p.ch.QueueDelete(q, false, false, false)
			}
		})
	}
}
