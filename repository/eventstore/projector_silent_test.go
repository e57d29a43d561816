package eventstore_test

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sillar-go/sillar/repository/eventstore"
	"github.com/sillar-go/sillar/repository/eventstore/memevents"
)

// silent does not answer the first question, as a connection that has frozen.
type silent struct {
	*memevents.Store
	asked int
}

func (s *silent) Checkpoint(ctx context.Context, projection string) (string, error) {
	if s.asked++; s.asked == 1 {
		<-ctx.Done()
		return "", context.Cause(ctx)
	}
	return s.Store.Checkpoint(ctx, projection)
}

// A connection that has gone silent does not stop a projection.
func TestProjectionOutlivesASilentConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &silent{Store: memevents.New(memevents.Config{})}
		ctx, stop := context.WithCancel(t.Context())
		if _, err := s.Append(ctx, "a", eventstore.AnyVersion, eventstore.Event{Type: "x"}); err != nil {
			t.Fatal(err)
		}
		applied := 0
		p, err := eventstore.NewProjector(s, plain{}, func(context.Context, eventstore.Recorded) error {
			applied++
			return nil
		}, eventstore.ProjectorConfig{Name: "p", Timeout: 5 * time.Second, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if applied != 1 {
			t.Errorf("%d events applied within 10 s, want 1", applied)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
