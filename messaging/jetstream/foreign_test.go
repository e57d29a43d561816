package jetstream_test

import (
	"testing"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/sillar-go/sillar/messaging/jetstream"
	"github.com/sillar-go/sillar/messaging/messagingtest"
)

func TestForeign(t *testing.T) {
	t.Parallel()
	cfg := jetstream.Config{Stream: unique(), Source: "test", Logger: quiet}
	js, err := natsjs.New(dial(t, shared.ClientURL()))
	if err != nil {
		t.Fatal(err)
	}
	messagingtest.Foreign(t, jetstream.Must(jetstream.New(shared.ClientURL(), cfg)), "ce-", func(t *testing.T,
		topic string, m messagingtest.ForeignMessage) bool {
		h := nats.Header{"content-type": {m.ContentType}}
		for name, value := range m.Headers {
			h[name] = []string{value}
		}
		if _, err := js.PublishMsg(t.Context(), &nats.Msg{Subject: cfg.Stream + "." + topic, Header: h,
			Data: m.Body}); err != nil {
			t.Log(m.Name, err)
			return false
		}
		return true
	})
}
