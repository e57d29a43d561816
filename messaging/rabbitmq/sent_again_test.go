package rabbitmq_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/sillar-go/sillar/internal/faultproxy"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/rabbitmq"
)

// A confirm is lost with its connection, and the server takes no other one in time: whether the message arrived is not
// known, though nothing could be sent again.
func TestOutcomeStaysUnknownWithoutAnotherAttempt(t *testing.T) {
	t.Parallel()
	via, direct, p := through(t)
	if err := subscribe(t, open(t, direct, rabbitmq.Config{}), "g", 1, "t").Close(); err != nil {
		t.Fatal(err)
	}
	p.Filter(func(fromTarget bool) faultproxy.Filter {
		return func(piece []byte) (int, bool) {
			ack := []byte{1, 0, 1, 0, 0, 0, 13, 0, 60, 0, 80} // basic.ack on channel 1
			if !fromTarget || !bytes.Contains(piece, ack) {
				return len(piece), false
			}
			p.Refuse(true)
			return 0, true
		}
	})
	b := open(t, via, rabbitmq.Config{})
	if err := b.Publish(within(t, 2*time.Second), "t", 1); !errors.Is(err, messaging.ErrUnknownOutcome) ||
		errors.Is(err, messaging.ErrNacked) {
		t.Errorf("got %v, want ErrUnknownOutcome", err)
	}
}
