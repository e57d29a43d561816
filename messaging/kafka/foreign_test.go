package kafka_test

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sillar-go/sillar/messaging/kafka"
	"github.com/sillar-go/sillar/messaging/messagingtest"
)

func TestForeign(t *testing.T) {
	t.Parallel()
	cfg := kafka.Config{Prefix: unique(), Source: "test", Logger: quiet}
	cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(strings.TrimPrefix(url, "kafka://"), ",")...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	messagingtest.Foreign(t, kafka.Must(kafka.New(url, cfg)), "ce_", func(t *testing.T, topic string,
		m messagingtest.ForeignMessage) bool {
		word, _, _ := strings.Cut(topic, ".")
		r := &kgo.Record{Topic: cfg.Prefix + "." + word, Value: m.Body}
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: "content-type", Value: []byte(m.ContentType)})
		for name, value := range m.Headers {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: name, Value: []byte(value)})
		}
		if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(m.Name, err)
		}
		return true
	})
}
