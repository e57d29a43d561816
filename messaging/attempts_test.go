package messaging_test

import (
	"context"
	"errors"
	"testing"

	"github.com/sillar-go/sillar/messaging"
)

// usedUp is a stream with one delivery, whose attempts are used up.
type usedUp struct {
	messaging.Stream
	messaging.Delivery
	given bool
	dead  chan error
}

func (u *usedUp) Subscribe(context.Context, messaging.Subscription) (messaging.Stream, error) {
	return u, nil
}

func (u *usedUp) Receive(ctx context.Context) (messaging.Delivery, error) {
	if !u.given {
		u.given = true
		return u, nil
	}
	<-ctx.Done()
	return nil, ctx.Err()
}
func (u *usedUp) Stop() error                  { return nil }
func (u *usedUp) Close() error                 { return nil }
func (u *usedUp) Envelope() messaging.Envelope { return messaging.Envelope{ID: "x", Type: "t"} }
func (u *usedUp) Attempt() int                 { return 4 }
func (u *usedUp) Unhandled() int               { return 0 }
func (u *usedUp) DeadLetter(_ context.Context, reason error) error {
	u.dead <- reason
	return nil
}

// A message whose attempts have ended without a result, more of them than the group allows, comes to no handler again.
func TestUsedUpAttemptsAreNotExceeded(t *testing.T) {
	u := &usedUp{dead: make(chan error, 1)}
	r := messaging.Must(messaging.NewRouter(u, messaging.RouterConfig{Logger: quiet}))
	g := r.Group("g", messaging.GroupConfig{Retry: messaging.Retry{Attempts: 3}})
	messaging.HandleRaw(g, "t", func(context.Context, messaging.Message[[]byte]) error {
		t.Error("the handler ran")
		return nil
	})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	if err := <-u.dead; !errors.Is(err, messaging.ErrAttempts) {
		t.Errorf("dead letter: %v", err)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
