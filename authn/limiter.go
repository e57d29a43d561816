package authn

import (
	"sync"
	"time"
)

// maxBuckets bounds the memory of a limiter. Full buckets are forgotten first: forgetting them changes nothing.
const maxBuckets = 50_000

// limiter is a token bucket for each key. A nil limiter limits nothing.
type limiter struct {
	burst int
	every time.Duration
	mu    sync.Mutex
	full  map[string]time.Time // when the bucket is full again
}

func newLimiter(burst int, every time.Duration) *limiter {
	if burst < 0 {
		return nil
	}
	return &limiter{burst: burst, every: every, full: map[string]time.Time{}}
}

// take takes one token of the key's bucket, or returns how long it takes until there is one.
func (l *limiter) take(key string) (wait time.Duration) {
	if l == nil {
		return 0
	}
	key = bucket(key)
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	at, known := l.full[key]
	if !known && len(l.full) >= maxBuckets {
		l.sweep(now)
	}
	if at.Before(now) {
		at = now
	}
	at = at.Add(l.every)
	if excess := at.Sub(now) - time.Duration(l.burst)*l.every; excess > 0 {
		return excess
	}
	l.full[key] = at
	return 0
}

// give returns a token that was taken.
func (l *limiter) give(key string) {
	if l == nil {
		return
	}
	key = bucket(key)
	l.mu.Lock()
	defer l.mu.Unlock()
	if at, known := l.full[key]; known {
		l.full[key] = at.Add(-l.every)
	}
}

// bucket bounds the length of a key.
func bucket(key string) string {
	if len(key) > 256 {
		return hashSecret(key)
	}
	return key
}

// sweep makes room: first of the buckets that are full, then, under attack by many keys, of any.
func (l *limiter) sweep(now time.Time) {
	for k, at := range l.full {
		if !at.After(now) {
			delete(l.full, k)
		}
	}
	for k := range l.full {
		if len(l.full) < maxBuckets*9/10 {
			return
		}
		delete(l.full, k)
	}
}
