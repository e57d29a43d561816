package memory

import (
	"maps"
	"slices"
	"sort"

	"github.com/sillar-go/sillar/messaging"
)

// queue is a group's. Its fields are guarded by the broker's mutex.
type queue struct {
	name     string
	patterns []string
	ready    []item // in the order of their places
	place    uint64 // the last one given
	delayed  int
	unacked  int
	streams  []*stream // that are open, the oldest first
	// waiting are the streams that can take a message, the next one first: consumers of a queue take turns.
	waiting []*stream
	dead    []messaging.DeadLetter
}

type item struct {
	e       messaging.Envelope
	attempt int
	// unhandled counts deliveries to processes without a handler.
	unhandled int
	place     uint64
}

// push adds a message at the end.
func (q *queue) push(e messaging.Envelope, attempt, unhandled int) {
	q.place++
	q.ready = append(q.ready, item{e, attempt, unhandled, q.place})
}

// giveBack puts a message where it was, so that what is given back keeps its order.
func (q *queue) giveBack(it item) {
	i := sort.Search(len(q.ready), func(i int) bool { return q.ready[i].place > it.place })
	q.ready = slices.Insert(q.ready, i, it)
}

// next takes the next message that a stream may receive, if there is one. The stream waits for its turn from now on.
func (q *queue) next(s *stream) (it item, ok bool) {
	i := 0
	if s.partitions > 0 {
		i = slices.IndexFunc(q.ready, func(it item) bool { return q.owns(s, it) })
	} else if !q.turn(s) {
		return item{}, false
	}
	if i < 0 || i >= len(q.ready) {
		return item{}, false
	}
	it = q.ready[i]
	if i == 0 { // in constant time
		q.ready[0] = item{}
		q.ready = q.ready[1:]
	} else {
		q.ready = slices.Delete(q.ready, i, i+1)
	}
	return it, true
}

// owns reports whether the partition of a message is a stream's at present. One that has changed hands is the old
// owner's until that has settled what it received.
func (q *queue) owns(s *stream, it item) bool {
	p := partition(it.e, s.partitions)
	if q.streams[p%len(q.streams)] != s {
		return false
	}
	for _, other := range q.streams {
		if other == s {
			continue
		}
		for d := range other.out {
			if partition(d.e, s.partitions) == p {
				return false
			}
		}
	}
	return true
}

// turn reports whether it is a stream's turn, which waits from now on.
func (q *queue) turn(s *stream) bool {
	if s.single && q.streams[0] != s {
		return false
	}
	if !slices.Contains(q.waiting, s) {
		q.waiting = append(q.waiting, s)
	}
	return q.waiting[0] == s
}

// leave ends the wait of a stream. It reports whether another one may take a message in its place.
func (q *queue) leave(s *stream) (another bool) {
	q.waiting = slices.DeleteFunc(q.waiting, func(w *stream) bool { return w == s })
	return len(q.waiting) > 0 && len(q.ready) > 0
}

func (q *queue) size() int { return len(q.ready) + q.delayed + q.unacked }

// clone keeps publisher, queues and handlers out of each other's bytes.
func clone(e messaging.Envelope) messaging.Envelope {
	e.Body = slices.Clone(e.Body)
	e.Headers = maps.Clone(e.Headers)
	return e
}
