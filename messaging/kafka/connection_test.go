package kafka

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// An attempt to connect that ended with the request that wanted it does not hide why the one before has failed.
func TestReasonIsThatOfAWholeAttempt(t *testing.T) {
	t.Parallel()
	b := Must(New("kafka://127.0.0.1:1", Config{Source: "test", Logger: slog.New(slog.DiscardHandler)}))
	t.Cleanup(func() { _ = b.Close() })
	attempt := func(took time.Duration, err error) {
		hooks{b}.OnBrokerConnect(kgo.BrokerMetadata{}, took, nil, err)
	}
	for _, c := range []struct {
		what string
		took time.Duration
		err  error
		want string
	}{
		{"the first, though cut short", time.Second, os.ErrDeadlineExceeded, "i/o timeout"},
		{"a refusal", time.Millisecond, errors.New("bad certificate"), "bad certificate"},
		{"cut short by a deadline", time.Second, os.ErrDeadlineExceeded, "bad certificate"},
		{"cancelled", time.Second, context.Canceled, "bad certificate"},
		{"a peer that does not answer", dialTimeout, os.ErrDeadlineExceeded, "i/o timeout"},
		{"success", time.Millisecond, nil, ""},
	} {
		attempt(c.took, c.err)
		if got := b.whyNot(); (got == nil) != (c.want == "") || got != nil && !strings.Contains(got.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.what, got, c.want)
		}
	}
}

// That connections end in place of answers shows until there is an answer to more than the question for versions.
func TestReasonOutlastsAConnectionWithoutAnswers(t *testing.T) {
	t.Parallel()
	b := Must(New("kafka://127.0.0.1:1", Config{Source: "test", Logger: slog.New(slog.DiscardHandler)}))
	t.Cleanup(func() { _ = b.Close() })
	h := hooks{b}
	h.OnBrokerE2E(kgo.BrokerMetadata{}, int16(kmsg.Metadata), kgo.BrokerE2E{ReadErr: io.EOF})
	h.OnBrokerConnect(kgo.BrokerMetadata{}, time.Millisecond, nil, nil)
	h.OnBrokerE2E(kgo.BrokerMetadata{}, int16(kmsg.ApiVersions), kgo.BrokerE2E{})
	if got := b.whyNot(); !errors.Is(got, errNoAnswer) {
		t.Errorf("after a connection: got %v, want %v", got, errNoAnswer)
	}
	h.OnBrokerE2E(kgo.BrokerMetadata{}, int16(kmsg.Metadata), kgo.BrokerE2E{})
	if got := b.whyNot(); got != nil {
		t.Errorf("after an answer: got %v, want nil", got)
	}
}
