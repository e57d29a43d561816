package sqlevents

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/sillar-go/sillar/internal/groupcommit"
	"github.com/sillar-go/sillar/repository/eventstore"
	"github.com/sillar-go/sillar/repository/sqldb"
)

// hotStreams lets appends to one stream, at whatever version, share a commit where they come while another one is being
// made: each would wait for the lock of the stream, and so for the commit of the one before.
type hotStreams struct {
	mu sync.Mutex
	of map[string]*hotStream
}

// hotTimeout bounds an append to a hot stream. It waits for the stream behind the transactions that have it, and keeps
// no other stream waiting.
const hotTimeout = 30 * time.Second

type hotStream struct {
	group groupcommit.Group[*appending]
	users int
}

// enter returns the group of a stream, and whether no other append to it is under way.
func (h *hotStreams) enter(
	stream string, flush func(context.Context, []*appending) []error,
) (hot *hotStream, alone bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.of == nil {
		h.of = map[string]*hotStream{}
	}
	hot = h.of[stream]
	if hot == nil {
		hot = &hotStream{group: groupcommit.Group[*appending]{Flush: flush, Timeout: hotTimeout}}
		h.of[stream] = hot
	}
	hot.users++
	return hot, hot.users == 1
}

func (h *hotStreams) leave(stream string, hot *hotStream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if hot.users--; hot.users == 0 {
		delete(h.of, stream)
	}
}

// appendAny appends to a stream at any version.
func (s *Store) appendAny(ctx context.Context, stream string, out []eventstore.Recorded) error {
	hot, alone := s.hot.enter(stream, s.appendMerged)
	defer s.hot.leave(stream, hot)
	if alone {
		return s.appendAlone(ctx, stream, eventstore.AnyVersion, out)
	}
	// A copy, because the statement may outlive this call.
	a := &appending{stream: stream, expected: eventstore.AnyVersion, out: slices.Clone(out)}
	if err := hot.group.Do(ctx, a); err != nil {
		return err
	}
	copy(out, a.out)
	return nil
}

// appendMerged makes appends to one stream, at any version, as one. They are recorded at the time of the first.
func (s *Store) appendMerged(ctx context.Context, list []*appending) []error {
	if len(list) > 1 {
		var merged []eventstore.Recorded
		for _, a := range list {
			for i := range a.out {
				a.out[i].Time = list[0].out[0].Time
			}
			merged = append(merged, a.out...)
		}
		err := s.appendAlone(ctx, list[0].stream, eventstore.AnyVersion, merged)
		if err == nil {
			for _, a := range list {
				merged = merged[copy(a.out, merged):]
			}
			return make([]error, len(list))
		}
		if state := sqldb.SQLState(err); len(state) != 5 || state[:2] != "22" && state[:2] != "23" {
			return groupcommit.Same(err, len(list))
		}
	}
	errs := make([]error, len(list)) // one of several is refused: the others must not fail with it
	for i, a := range list {
		errs[i] = s.appendAlone(ctx, a.stream, a.expected, a.out)
	}
	return errs
}
