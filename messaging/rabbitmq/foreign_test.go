package rabbitmq_test

import (
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/messaging/messagingtest"
	"github.com/sillar-go/sillar/messaging/rabbitmq"
)

func TestForeign(t *testing.T) {
	t.Parallel()
	url := testenv.RabbitMQ(t)
	ch := raw(t, url)
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	messagingtest.Foreign(t, rabbitmq.Must(rabbitmq.New(url, rabbitmq.Config{Source: "test", Logger: quiet})),
		"cloudEvents:", func(t *testing.T, topic string, m messagingtest.ForeignMessage) bool {
			h := amqp.Table{}
			for name, value := range m.Headers {
				h[name] = value
			}
			c, err := ch.PublishWithDeferredConfirm("microservices", topic, true, false, amqp.Publishing{
				ContentType: m.ContentType, DeliveryMode: amqp.Persistent, Headers: h, Body: m.Body})
			if err != nil || !c.Wait() {
				t.Fatal(m.Name, err)
			}
			return true
		})
}
