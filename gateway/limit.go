package gateway

import (
	"container/list"
	"context"
	"sync"
	"time"
)

// Limiter counts requests for Route.RateLimit. Package redislimit has one for several gateways.
type Limiter interface {
	// Allow takes one of the tokens of key, of which rate a second come back, up to burst. When there is none, it says
	// when there will be. With an error the request passes.
	Allow(ctx context.Context, key string, rate float64, burst int) (ok bool, retryAfter time.Duration, err error)
}

// MemoryLimiter counts in this process.
type MemoryLimiter struct {
	max int

	mu     sync.Mutex
	byKey  map[string]*list.Element
	recent *list.List // of *tokens, the most recently used first
}

type tokens struct {
	key  string
	left float64
	last time.Time
}

// NewMemoryLimiter returns a limiter that remembers at most maxKeys keys, 0 for 65,536. Those unused for longest are
// forgotten first: they have all their tokens again anyway, unless there are more clients than keys.
func NewMemoryLimiter(maxKeys int) *MemoryLimiter {
	if maxKeys <= 0 {
		maxKeys = 1 << 16
	}
	return &MemoryLimiter{max: maxKeys, byKey: map[string]*list.Element{}, recent: list.New()}
}

// Allow implements Limiter.
func (l *MemoryLimiter) Allow(_ context.Context, key string, rate float64, burst int) (bool, time.Duration, error) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.byKey[key]
	if !ok {
		if len(l.byKey) >= l.max {
			last := l.recent.Back()
			delete(l.byKey, l.recent.Remove(last).(*tokens).key)
		}
		e = l.recent.PushFront(&tokens{key: key, left: float64(burst), last: now})
		l.byKey[key] = e
	}
	l.recent.MoveToFront(e)
	t := e.Value.(*tokens)
	t.left = min(float64(burst), t.left+now.Sub(t.last).Seconds()*rate)
	t.last = now
	if t.left < 1 {
		return false, time.Duration(min((1-t.left)/rate*float64(time.Second), 1<<62)), nil
	}
	t.left--
	return true, 0, nil
}
