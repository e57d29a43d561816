package rabbitmq_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/rabbitmq"
)

// A topic that the user may not publish is refused with the server's reason, and at once, though the server closes the
// channel over it: what is under way beside it is published nevertheless.
func TestForbiddenTopic(t *testing.T) {
	t.Parallel()
	direct := testenv.RabbitMQ(t)
	tr := flow(t, direct, rabbitmq.Config{})
	tr.alive("the start")
	testenv.RestrictTopics(t, direct, "microservices", "^(t|nobody.*)$")
	tr.until("the permission to be withdrawn", func() bool {
		return tr.b.Publish(within(t, 5*time.Second), "other", 1) != nil &&
			!errors.Is(tr.b.Publish(within(t, 5*time.Second), "other", 1), messaging.ErrUnroutable)
	})
	for range 20 {
		err := tr.b.Publish(within(t, 10*time.Second), "other", 1)
		if !errors.Is(err, messaging.ErrNacked) || !strings.Contains(err.Error(), "ACCESS_REFUSED") {
			t.Fatalf("a forbidden topic: %v", err)
		}
		tr.alive("a forbidden topic")
	}
	err := tr.b.PublishBatch(within(t, 10*time.Second), []messaging.Envelope{{Type: "t", ID: "first"}, {Type: "other"},
		{Type: "t", ID: "last"}})
	var b *messaging.BatchError
	if !errors.As(err, &b) || b.Errors[0] != nil || !errors.Is(b.Errors[1], messaging.ErrNacked) || b.Errors[2] != nil {
		t.Errorf("a batch with a forbidden topic: %v", err)
	}
	tr.alive("a forbidden topic in a batch")
	tr.finish()
}

// tooLarge checks that a body the server does not take is refused, once by the server and then before it is sent.
func (tr *traffic) tooLarge(limit int) {
	tr.Helper()
	for range 3 {
		if err := tr.b.Publish(within(tr.T, 20*time.Second), "t", make([]byte, limit+1)); !errors.Is(err,
			messaging.ErrInvalid) {
			tr.Fatalf("a body above the server's limit: %v", err)
		}
		if err := tr.b.Publish(within(tr.T, 20*time.Second), "t", make([]byte, limit)); err != nil {
			tr.Fatalf("a body as large as the server's limit: %v", err)
		}
	}
	tr.alive("bodies above the server's limit")
}
