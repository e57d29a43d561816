package kafka

import (
	"context"
	"time"
)

// closeTimeout is for an orderly end: the last commit and leaving the group.
const closeTimeout = 5 * time.Second

// Stop implements messaging.Stream. The partitions go to other members when the deliveries that were received have been
// settled, as those behind them may have the same key.
func (s *stream) Stop() error {
	s.mu.Lock()
	last := !s.stopped && s.held == 0
	s.stopped = true
	s.ready, s.waiting = nil, nil
	s.mu.Unlock()
	s.cancel()
	if last {
		s.leave()
	}
	return nil
}

// Close implements messaging.Stream.
func (s *stream) Close() error {
	s.mu.Lock()
	s.closed = true // what is not settled is delivered to another member from here on
	s.mu.Unlock()
	signal(s.free)
	err := s.Stop()
	s.leave()
	s.b.mu.Lock()
	delete(s.b.streams, s)
	s.b.mu.Unlock()
	return err
}

// leaveGroup gives the partitions back, with what was settled. After closeTimeout all that it waits for ends: the
// coordinator may not answer.
func (s *stream) leaveGroup() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.b.ctx), closeTimeout)
	defer cancel()
	defer context.AfterFunc(ctx, s.giveUp)()
	s.retire()
	s.polling.Wait()
	committing, done := context.WithTimeout(ctx, closeTimeout/2)
	s.commit(committing)
	done()
	s.mu.Lock()
	s.closed = true
	for _, p := range s.parts {
		p.dirty = p.dirty && p.leaving // what could not be committed is not tried again: it would take the time to leave
	}
	s.mu.Unlock()
	_ = s.cl.LeaveGroupContext(ctx) // else the coordinator notices after SessionTimeout
	s.giveUp()
	s.cl.Close()
	close(s.over)
}
