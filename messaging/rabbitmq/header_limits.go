package rabbitmq

import (
	amqp "github.com/rabbitmq/amqp091-go"
)

// All headers of a message travel in one frame. A server that gets a larger one ends the connection, with all that is
// under way on it, and so does amqp091. What this package publishes stays far below (messaging.MaxHeaders); what others
// have published may leave no room for what is added when it moves to another queue.

// spare is left free in a frame: for the fixed part of the properties, and for what the server notes when it gives a
// message out again.
const spare = 1 << 10

// headerOverflow returns by how many bytes the headers of a message are too large to be moved, at most 0 when they are
// not.
func (c *conn) headerOverflow(msg *amqp.Publishing) int {
	if c.Config.FrameSize <= 0 {
		return 0
	}
	n := valueSize(msg.Headers) - (c.Config.FrameSize - spare)
	for _, s := range []string{msg.ContentType, msg.ContentEncoding, msg.CorrelationId, msg.ReplyTo, msg.Expiration,
		msg.MessageId, msg.Type, msg.UserId, msg.AppId} {
		n += 1 + len(s)
	}
	return n
}

// makeRoom shortens the reason of a dead letter and, where that is not enough, leaves out its largest headers, whose
// names it returns.
func (c *conn) makeRoom(msg *amqp.Publishing) (dropped []string) {
	over := c.headerOverflow(msg)
	if reason, ok := msg.Headers[headerReason].(string); ok && over > 0 {
		msg.Headers[headerReason] = reason[:max(len(reason)-over, 0)]
		over = c.headerOverflow(msg)
	}
	for ; over > 0; over = c.headerOverflow(msg) {
		largest, size := "", 0
		for name, v := range msg.Headers {
			if n := len(name) + valueSize(v); n > size {
				largest, size = name, n
			}
		}
		if largest == "" {
			break
		}
		delete(msg.Headers, largest)
		dropped = append(dropped, largest)
	}
	return dropped
}

// valueSize is at least what a value of a header takes.
func valueSize(v any) int {
	switch v := v.(type) {
	case string:
		return 5 + len(v)
	case []byte:
		return 5 + len(v)
	case []any:
		n := 5
		for _, e := range v {
			n += valueSize(e)
		}
		return n
	case amqp.Table:
		n := 5
		for name, e := range v {
			n += 1 + len(name) + valueSize(e)
		}
		return n
	}
	return 9 // the largest of the others
}
