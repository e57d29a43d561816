package jetstream

import (
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/sillar-go/sillar/messaging"
)

// Only what proves that the stream did not store a message is an ErrNacked or one of the other refusals.
func TestOutcomeIsUnknownUnlessItIsProven(t *testing.T) {
	t.Parallel()
	b := Must(New("nats://127.0.0.1:1", Config{Source: "test"}))
	t.Cleanup(func() { _ = b.Close() })
	api := func(code int, number natsjs.ErrorCode) error { return &natsjs.APIError{Code: code, ErrorCode: number} }
	for _, c := range []struct{ err, want error }{
		{nats.ErrMaxPayload, messaging.ErrInvalid},
		{nats.ErrBadSubject, messaging.ErrInvalid},
		{api(400, codeTooLarge), messaging.ErrInvalid},
		{nats.ErrNoResponders, messaging.ErrBlocked},
		{natsjs.ErrNoStreamResponse, messaging.ErrBlocked},
		{nats.ErrReconnectBufExceeded, messaging.ErrBlocked},
		{nats.ErrConnectionReconnecting, messaging.ErrBlocked},
		{api(503, codeStoreFailed), messaging.ErrBlocked},
		{api(503, 10008), messaging.ErrBlocked},
		{api(429, 10167), messaging.ErrBlocked},
		{api(400, 10109), messaging.ErrNacked}, // the stream is sealed
		{nats.ErrConnectionClosed, messaging.ErrUnknownOutcome},
		{nats.ErrDisconnected, messaging.ErrUnknownOutcome},
		{nats.ErrTimeout, messaging.ErrUnknownOutcome},
		{natsjs.ErrAsyncPublishTimeout, messaging.ErrUnknownOutcome},
		{natsjs.ErrInvalidJSAck, messaging.ErrUnknownOutcome},
		{io.EOF, messaging.ErrUnknownOutcome},
		{errors.New("of a later version of the client"), messaging.ErrUnknownOutcome},
	} {
		got := b.refusal(&nats.Msg{Subject: "s.t"}, fmt.Errorf("wrapped: %w", c.err))
		if !errors.Is(got, c.want) || !errors.Is(got, c.err) {
			t.Errorf("%v: got %v, want %v", c.err, got, c.want)
		}
		if unknown := c.want == messaging.ErrUnknownOutcome; unknown && errors.Is(got, messaging.ErrNacked) {
			t.Errorf("%v: got %v, which says that it was not stored", c.err, got)
		}
	}
}
