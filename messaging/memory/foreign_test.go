package memory_test

import (
	"errors"
	"testing"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/memory"
	"github.com/sillar-go/sillar/messaging/messagingtest"
)

func TestForeign(t *testing.T) {
	t.Parallel()
	b := memory.Must(memory.New(memory.Config{}))
	messagingtest.Foreign(t, b, "ce-", func(t *testing.T, topic string, m messagingtest.ForeignMessage) bool {
		err := b.PublishBatch(t.Context(), []messaging.Envelope{{Type: topic, ContentType: m.ContentType,
			Headers: m.Headers, Body: m.Body}})
		if err != nil && !errors.Is(err, messaging.ErrInvalid) {
			t.Fatal(err)
		}
		return err == nil
	})
}
