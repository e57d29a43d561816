package outbox_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/outbox"
)

// store is a Store that writes down what is done to it.
type store struct {
	mu       sync.Mutex
	entries  []outbox.Entry
	claimErr []error
	log      []string
	limit    int
}

func (s *store) note(what string, entries ...outbox.Entry) {
	for _, e := range entries {
		s.log = append(s.log, what+" "+e.ID)
	}
}

func (s *store) Claim(_ context.Context, _ string, limit int, _ time.Duration) ([]outbox.Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit = limit
	if len(s.claimErr) > 0 {
		err := s.claimErr[0]
		s.claimErr = s.claimErr[1:]
		return nil, err
	}
	claimed := s.entries
	s.entries = nil
	return claimed, nil
}

func (s *store) Done(ctx context.Context, _ string, entries []outbox.Entry) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note("done", entries...)
	return ctx.Err()
}

func (s *store) Release(ctx context.Context, _ string, entries []outbox.Entry) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note("release", entries...)
	return ctx.Err()
}

func (s *store) ClaimHeld(context.Context, string, int, time.Duration) ([]outbox.Entry, error) {
	return nil, nil
}

func (s *store) Hold(ctx context.Context, _ string, entries []outbox.Entry, h outbox.Hold) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	counted := ""
	if h.Uncounted {
		counted = "uncounted "
	}
	s.note(fmt.Sprint("hold ", counted, h.Pause), entries...)
	return ctx.Err()
}

func (s *store) Wake(context.Context) <-chan struct{} { return nil }

func (s *store) Pending(context.Context) (int64, time.Time, error) {
	return 7, time.Now().Add(-time.Minute), nil
}

func (s *store) done() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.log)
}

// publisher is a function as a broker.
type publisher func(ctx context.Context, events []messaging.Envelope) error

func (p publisher) Publish(context.Context, string, any, ...messaging.Option) error { return errBoom }

func (p publisher) PublishBatch(ctx context.Context, events []messaging.Envelope) error {
	return p(ctx, events)
}
