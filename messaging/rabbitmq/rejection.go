package rabbitmq

import (
	"errors"
	"fmt"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/sillar-go/sillar/messaging"
)

// A server that refuses one message closes the channel, with all that is under way on it, and says why in words only.
// Unless they are read, that message is sent again and again, and each time takes the others along.

// blame returns an error when the channel was closed for this very message, which another attempt would not mend.
func (g *pubGen) blame(o outgoing) error {
	switch e := g.err; {
	case e == nil:
		return nil
	case e.Code == amqp.PreconditionFailed:
		var size, most int64
		if _, words, ok := strings.Cut(e.Reason, "message size "); ok {
			if _, err := fmt.Sscanf(words, "%d is larger than configured max size %d", &size, &most); err == nil && most > 0 {
				g.c.maxBody.Store(most) // no other one is sent on this connection
				return g.c.tooLarge(o.msg.Body)
			}
		}
	case e.Code == amqp.AccessRefused && strings.Contains(e.Reason, "topic '"+o.key+"'"): // topic permissions
		return fmt.Errorf("%w: %s: %s", messaging.ErrNacked, o.key, e.Reason)
	}
	return nil
}

// tooLarge refuses a body above the limit that the server has reported.
func (c *conn) tooLarge(body []byte) error {
	if most := c.maxBody.Load(); most > 0 && int64(len(body)) > most {
		return fmt.Errorf("%w: a body of %d bytes: the server takes at most %d (its max_message_size)", messaging.ErrInvalid,
			len(body), most)
	}
	return nil
}

// why says what ended a channel.
func (g *pubGen) why() error {
	if g.err == nil {
		return errors.New("the channel was closed")
	}
	return g.err
}
