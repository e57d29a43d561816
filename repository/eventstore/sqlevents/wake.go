package sqlevents

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sillar-go/sillar/internal/backoff"
	"github.com/sillar-go/sillar/internal/pglisten"
)

// wake wakes the callers of Wait, because this process has appended, and other processes a little later, in one NOTIFY
// for all that was appended meanwhile: it takes a lock that all committers of the server share, so it is no part of an
// append.
func (s *Store) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broadcast()
	if s.cfg.Coalesce < 0 || s.db.Pool() == nil || s.telling != nil {
		return
	}
	s.telling = time.AfterFunc(s.cfg.Coalesce, func() {
		s.mu.Lock()
		s.telling = nil
		s.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, _ = s.db.Pool().Exec(ctx, "SELECT pg_notify($1, '')", s.channel()) // a hint: Wait looks besides
	})
}

// broadcast ends the waits of this process. It is called with mu held.
func (s *Store) broadcast() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *Store) channel() string { return s.prefix + "events" }

// Wait implements eventstore.Store.
func (s *Store) Wait(ctx context.Context) {
	s.mu.Lock()
	changed := s.changed
	s.mu.Unlock()
	t := time.NewTimer(s.cfg.Poll)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-changed:
	case <-t.C:
	}
}

// Listen ends Wait when another process appends, until ctx ends, and returns nil. It holds a connection of its own,
// and takes another when that one breaks. Without it, behind a pooler, which is logged once, and on SQLite, where it
// does nothing, Wait looks every Config.Poll.
func (s *Store) Listen(ctx context.Context) error {
	if s.db.Pool() == nil {
		<-ctx.Done()
		return nil
	}
	pause := backoff.Exponential(100*time.Millisecond, 5*time.Second)
	for failed := 0; ctx.Err() == nil; {
		listened, err := s.listenOnce(ctx)
		if errors.Is(err, errors.ErrUnsupported) {
			s.cfg.Logger.WarnContext(ctx, "sqlevents: not listening, looking every now and then instead", "poll", s.cfg.Poll,
				"error", err)
			<-ctx.Done()
			return nil
		}
		if listened {
			failed = 0
		}
		if failed++; ctx.Err() == nil {
			s.cfg.Logger.WarnContext(ctx, "sqlevents: not listening, looking every now and then instead", "failures", failed,
				"error", err)
			_ = backoff.Sleep(ctx, pause.Delay(failed))
		}
	}
	return nil
}

func (s *Store) listenOnce(ctx context.Context) (listened bool, err error) {
	awake := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.broadcast()
	}
	listened, err = pglisten.Run(ctx, s.db.Pool(), s.channel(), pglisten.Every,
		func(context.Context, *pgx.Conn) error { awake(); return nil }, // the first time for what was missed before
		func(string) { awake() })
	return listened, fmt.Errorf("sqlevents: listen: %w", err)
}
