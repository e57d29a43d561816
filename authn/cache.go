package authn

import (
	"container/list"
	"crypto/sha256"
	"sync"
	"time"
)

// tokenCache remembers verified tokens, least recently used ones go first. A nil cache remembers nothing.
type tokenCache struct {
	mu    sync.Mutex
	size  int
	order *list.List // of *cached, the most recent in front
	byKey map[[sha256.Size]byte]*list.Element
}

type cached struct {
	key [sha256.Size]byte
	c   *claims
}

func newTokenCache(size int) *tokenCache {
	if size < 0 {
		return nil
	}
	if size == 0 {
		size = 4096
	}
	return &tokenCache{size: size, order: list.New(), byKey: map[[sha256.Size]byte]*list.Element{}}
}

func (t *tokenCache) get(token string) *claims {
	if t == nil || len(token) > MaxTokenSize {
		return nil
	}
	key := sha256.Sum256([]byte(token))
	t.mu.Lock()
	defer t.mu.Unlock()
	e, ok := t.byKey[key]
	if !ok {
		return nil
	}
	hit := e.Value.(*cached)
	if time.Now().After(hit.c.exp.Add(maxLeeway)) {
		t.order.Remove(e)
		delete(t.byKey, key)
		return nil
	}
	t.order.MoveToFront(e)
	return hit.c
}

func (t *tokenCache) put(token string, c *claims) {
	if t == nil {
		return
	}
	key := sha256.Sum256([]byte(token))
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.byKey[key]; ok {
		return
	}
	t.byKey[key] = t.order.PushFront(&cached{key, c})
	for t.order.Len() > t.size {
		last := t.order.Back()
		t.order.Remove(last)
		delete(t.byKey, last.Value.(*cached).key)
	}
}
