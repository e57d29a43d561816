package kafka

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sillar-go/sillar/messaging"
)

// Only what proves that the cluster did not store a record is an ErrNacked or one of the other refusals.
func TestOutcomeIsUnknownUnlessItIsProven(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ err, want error }{
		{kgo.ErrClientClosed, messaging.ErrClosed},
		{context.Canceled, messaging.ErrBlocked},
		{context.DeadlineExceeded, messaging.ErrBlocked},
		{kgo.ErrRecordTimeout, messaging.ErrBlocked},
		{kerr.MessageTooLarge, messaging.ErrInvalid},
		{kerr.RecordListTooLarge, messaging.ErrInvalid},
		{kerr.InvalidRecord, messaging.ErrInvalid},
		{kerr.InvalidTimestamp, messaging.ErrNacked},
		{kerr.TopicAuthorizationFailed, messaging.ErrNacked},
		{kerr.ClusterAuthorizationFailed, messaging.ErrNacked},
		{kerr.NotEnoughReplicas, messaging.ErrNacked},
		{kerr.PolicyViolation, messaging.ErrNacked},
		{kerr.UnknownTopicOrPartition, ErrTopology},
		{fmt.Errorf("%w: %w", errUnderWay, context.DeadlineExceeded), messaging.ErrUnknownOutcome},
		{&kgo.ErrFirstReadEOF{}, messaging.ErrUnknownOutcome},
		{io.EOF, messaging.ErrUnknownOutcome},
		{io.ErrUnexpectedEOF, messaging.ErrUnknownOutcome},
		{kgo.ErrRecordRetries, messaging.ErrUnknownOutcome},
		{kerr.SaslAuthenticationFailed, messaging.ErrUnknownOutcome}, // of another connection than the one that was lost
		{kerr.RequestTimedOut, messaging.ErrUnknownOutcome},
		{kerr.NotEnoughReplicasAfterAppend, messaging.ErrUnknownOutcome},
		{kerr.UnknownServerError, messaging.ErrUnknownOutcome},
		{kerr.KafkaStorageError, messaging.ErrUnknownOutcome},
		{kerr.OutOfOrderSequenceNumber, messaging.ErrUnknownOutcome},
		{kerr.InvalidProducerEpoch, messaging.ErrUnknownOutcome},
		{errors.New("of a later version of the client"), messaging.ErrUnknownOutcome},
	} {
		got := outcome(fmt.Errorf("wrapped: %w", c.err))
		if !errors.Is(got, c.want) || !errors.Is(got, c.err) {
			t.Errorf("%v: got %v, want %v", c.err, got, c.want)
		}
		if unknown := c.want == messaging.ErrUnknownOutcome; unknown && (errors.Is(got, messaging.ErrNacked) ||
			errors.Is(got, messaging.ErrBlocked)) {
			t.Errorf("%v: got %v, which says that it was not stored", c.err, got)
		}
	}
	if got := outcome(nil); got != nil {
		t.Errorf("no error: got %v", got)
	}
}
