package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/outbox"
)

// sick is a broker that refuses what it is given, and whose Health may say so.
type sick struct {
	publisher
	health error
}

func (s sick) Health(context.Context) error { return s.health }

// A broker that refuses every event is at fault, not the events: the attempt is not counted, and their pauses do not
// grow. One that refuses some of them, or the only one while it is healthy, leaves the pause to the event's own
// attempts.
func TestAnOutageIsNotCountedAgainstEvents(t *testing.T) {
	unconfirmed := fmt.Errorf("%w: %w", messaging.ErrUnknownOutcome, context.DeadlineExceeded)
	tried := func(id string) outbox.Entry { e := entry(id, id); e.Attempts = 20; return e }
	for name, c := range map[string]struct {
		errs   []error
		health error
		want   []string
	}{
		"all nacked": {[]error{messaging.ErrNacked, messaging.ErrNacked}, nil, []string{"hold uncounted 5s 0",
			"hold uncounted 5s 1"}},
		"none confirmed":    {[]error{unconfirmed, unconfirmed}, nil, []string{"hold uncounted 5s 0", "hold uncounted 5s 1"}},
		"one nacked":        {[]error{nil, messaging.ErrNacked}, nil, []string{"done 0", "hold 1m0s 1"}},
		"the only, healthy": {[]error{messaging.ErrNacked}, nil, []string{"hold 1m0s 0"}},
		"the only, sick":    {[]error{messaging.ErrNacked}, messaging.ErrBlocked, []string{"hold uncounted 5s 0"}},
		"malformed": {[]error{messaging.ErrInvalid, messaging.ErrInvalid}, nil,
			[]string{"hold 1m0s 0", "hold 1m0s 1"}},
		"closed and nacked": {[]error{messaging.ErrClosed, messaging.ErrNacked, messaging.ErrNacked}, nil,
			[]string{"hold uncounted 5s 1", "hold uncounted 5s 2", "release 0"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &store{}
				for i := range c.errs {
					s.entries = append(s.entries, tried(fmt.Sprint(i)))
				}
				p := sick{func(context.Context, []messaging.Envelope) error {
					return &messaging.BatchError{Errors: c.errs}
				}, c.health}
				r := outbox.Must(outbox.NewRelay(s, p, outbox.RelayConfig{Logger: quiet, Backoff: messaging.Constant(time.Minute)}))
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- r.Run(ctx) }()
				synctest.Wait()
				got := s.done()
				cancel()
				if err := errors.Join(<-done); err != nil {
					t.Error(err)
				}
				slices.Sort(got)
				if !slices.Equal(got, c.want) {
					t.Errorf("got %v, want %v", got, c.want)
				}
			})
		})
	}
}
