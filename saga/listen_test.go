package saga_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sillar-go/sillar/internal/backoff"
	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/sagamem"
)

// notifying is a store that notifies of the ends of sagas, unless broken is set.
type notifying struct {
	*countingStore
	mu     sync.Mutex
	ended  func(ids []string)
	asked  int // how often Listen was called
	broken error
}

func (s *notifying) Listen(ctx context.Context, ended func(ids []string)) error {
	s.mu.Lock()
	s.asked++
	if s.broken != nil {
		defer s.mu.Unlock()
		return s.broken
	}
	s.ended = ended
	s.mu.Unlock()
	<-ctx.Done()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = nil
	return ctx.Err()
}

// notify is OnChange of the orchestrator that runs the sagas.
func (s *notifying) notify(_ context.Context, r saga.Record) {
	s.mu.Lock()
	ended := s.ended
	s.mu.Unlock()
	if ended != nil && r.Status.Ended() {
		ended([]string{"another", r.ID})
	}
}

func TestWaitReturnsWhenTheStoreNotifies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		def := saga.Define("x", 1, saga.Sleep[flow]("wait", 10*time.Second+time.Millisecond))
		store := &notifying{countingStore: &countingStore{Store: sagamem.New()}}
		start(t, saga.Must(saga.New(store.Store, saga.Config{Logger: quiet, Poll: 970 * time.Millisecond,
			OnChange: store.notify}, def)))
		web := saga.Must(saga.New(store, saga.Config{}, def)) // does not run
		for range 2 {
			var wg sync.WaitGroup
			begin := time.Now()
			for i := range 100 {
				h := saga.Must(def.Start(t.Context(), web, fmt.Sprint(begin.Unix(), "-", i), flow{}))
				wg.Go(func() {
					if _, err := h.Wait(t.Context()); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			synctest.Wait()
			if late := time.Since(begin) % (250 * time.Millisecond); late == 0 {
				t.Errorf("the callers waited %v: until a poll, not until the notification", time.Since(begin))
			}
			store.mu.Lock()
			if store.ended != nil {
				t.Error("Listen goes on while no caller waits")
			}
			store.mu.Unlock()
		}
	})
}

func TestWaitAsksTheStoreWhereNotificationsDoNotWork(t *testing.T) {
	for name, c := range map[string]struct {
		broken             error
		lines, least, most int // of the log; calls of Listen
	}{
		"none":        {errNone, 0, 1, 1},
		"unsupported": {fmt.Errorf("%w: a pooler", errors.ErrUnsupported), 1, 1, 1},
		"broken":      {errBoom, 1, 4, 20}, // with pauses that grow
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				def := saga.Define("x", 1, saga.Sleep[flow]("wait", 9*time.Second))
				store := &notifying{countingStore: &countingStore{Store: sagamem.New()}, broken: c.broken}
				log, text := logged(slog.LevelWarn)
				start(t, saga.Must(saga.New(store.Store, saga.Config{Logger: quiet}, def)))
				web := saga.Must(saga.New(unlucky{store}, saga.Config{Logger: log}, def))
				for _, id := range []string{"1", "2"} {
					h := saga.Must(def.Start(t.Context(), web, id, flow{}))
					begin := time.Now()
					if _, err := h.Wait(t.Context()); err != nil {
						t.Fatal(err)
					}
					if took := time.Since(begin); took > 11*time.Second {
						t.Errorf("the caller waited %v", took)
					}
				}
				if n := strings.Count(text.String(), "no notifications"); n != c.lines {
					t.Errorf("%d log lines, want %d: %s", n, c.lines, text)
				}
				store.mu.Lock()
				defer store.mu.Unlock()
				if store.asked < c.least || store.asked > c.most {
					t.Errorf("Listen was called %d times, want %d to %d", store.asked, c.least, c.most)
				}
			})
		})
	}
}

// breaking is a store whose notifications break every second; the first ones that come are those of the third second.
type breaking struct{ *notifying }

func (b breaking) Listen(ctx context.Context, ended func(ids []string)) error {
	_ = backoff.Sleep(ctx, time.Second)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.asked++; b.asked == 3 {
		ended([]string{"another"})
	}
	return errBoom
}

// What breaks again after it has worked is logged again.
func TestEachInterruptionOfNotificationsIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		def := saga.Define("x", 1, saga.Sleep[flow]("wait", time.Minute))
		store := &notifying{countingStore: &countingStore{Store: sagamem.New()}}
		log, text := logged(slog.LevelWarn)
		start(t, saga.Must(saga.New(store.Store, saga.Config{Logger: quiet}, def)))
		web := saga.Must(saga.New(breaking{store}, saga.Config{Logger: log}, def))
		if _, err := saga.Must(def.Start(t.Context(), web, "1", flow{})).Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		store.mu.Lock()
		defer store.mu.Unlock()
		if n := strings.Count(text.String(), "no notifications"); n != 2 || store.asked < 5 {
			t.Errorf("%d log lines after %d calls of Listen, want 2: %s", n, store.asked, text)
		}
	})
}

// errNone stands for a store without notifications.
var errNone = errors.New("none")

// unlucky is a notifying store whose Listen returns nil for errNone.
type unlucky struct{ *notifying }

func (u unlucky) Listen(ctx context.Context, ended func(ids []string)) error {
	if err := u.notifying.Listen(ctx, ended); !errors.Is(err, errNone) {
		return err
	}
	return nil
}
