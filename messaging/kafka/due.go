package kafka

import (
	"cmp"
	"container/heap"
	"time"
)

// deliverDue makes due retries ready, and returns when the next one is due.
func (s *stream) deliverDue() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.waiting) > 0 {
		if wait := time.Until(s.waiting[0].due); wait > 0 {
			return wait
		}
		s.ready = append(s.ready, heap.Pop(&s.waiting).(*delivery))
		signal(s.arrived)
		s.limitWaiting()
	}
	return time.Hour
}

// dueHeap has the retry that is due first in front.
type dueHeap []*delivery

func (h dueHeap) Len() int { return len(h) }

func (h dueHeap) Less(i, j int) bool {
	return cmp.Or(h[i].due.Compare(h[j].due), cmp.Compare(h[i].offset, h[j].offset)) < 0
}

func (h dueHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *dueHeap) Push(d any) { *h = append(*h, d.(*delivery)) }

// Pop implements heap.Interface.
func (h *dueHeap) Pop() any {
	old := *h
	d := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return d
}
