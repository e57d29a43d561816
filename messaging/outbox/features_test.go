package outbox_test

import (
	"context"
	"errors"
	"testing"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/outbox"
)

// unnoticing is a publisher that declares not to notice events that no queue takes.
type unnoticing struct{ features messaging.Features }

func (unnoticing) Publish(context.Context, string, any, ...messaging.Option) error { return nil }
func (unnoticing) PublishBatch(context.Context, []messaging.Envelope) error        { return nil }
func (u unnoticing) Features() messaging.Features                                  { return u.features }

func TestNewRelayReturnsErrUnsupportedForUnroutablePolicy(t *testing.T) {
	for _, c := range []struct {
		features messaging.Features
		policy   outbox.Unroutable
		want     error
	}{
		{messaging.Features{}, outbox.UnroutableDiscard, nil},
		{messaging.Features{}, outbox.UnroutableHold, messaging.ErrUnsupported},
		{messaging.Features{}, outbox.UnroutableHoldKey, messaging.ErrUnsupported},
		{messaging.Features{Unroutable: true}, outbox.UnroutableHold, nil},
	} {
		if _, err := outbox.NewRelay(&store{}, unnoticing{c.features},
			outbox.RelayConfig{Unroutable: c.policy}); !errors.Is(err, c.want) {
			t.Errorf("%+v with policy %d: got %v, want %v", c.features, c.policy, err, c.want)
		}
	}
}
