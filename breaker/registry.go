package breaker

import (
	"container/list"
	"fmt"
	"sync"
	"time"
)

// Registry holds a breaker for each key, such as a host, in bounded memory. It is safe for concurrent use.
type Registry struct {
	cfg Config
	max int
	// idle is after how long without use a failure need not be remembered.
	idle time.Duration

	mu       sync.Mutex
	byKey    map[string]*list.Element
	recent   *list.List // of *entry, the most recently used first
	overflow *Breaker
}

type entry struct {
	key  string
	b    *Breaker
	used time.Time
}

// NewRegistry returns a registry that makes breakers from cfg, named cfg.Name/key, and holds at most max of them; 0
// means 1,024. When it is full, the least recently used breaker without a failure to remember makes room; when there
// is none, the calls of new keys pass unguarded through one breaker, NAME/(others), that counts and never rejects: junk
// keys neither push out what is known about a failing one, nor cut off a key that was never called. A failure is
// forgotten when its key has not been used for ten times as long as it could matter, ten minutes at least: else keys
// that failed once would fill the registry for good.
func NewRegistry(cfg Config, maxKeys int) (*Registry, error) {
	if maxKeys < 0 {
		return nil, fmt.Errorf("breaker: a registry of %d keys", maxKeys)
	}
	if maxKeys == 0 {
		maxKeys = 1024
	}
	shared := cfg
	shared.Name = named(cfg.Name, "(others)")
	shared.ObserveOnly = true // the failures of one key say nothing about another
	overflow, err := New(shared)
	if err != nil {
		return nil, err
	}
	return &Registry{
		cfg: cfg, max: maxKeys, byKey: map[string]*list.Element{}, recent: list.New(), overflow: overflow,
		idle: max(10*time.Minute, 10*max(overflow.cfg.OpenFor, overflow.cfg.Window)),
	}, nil
}

func named(name, key string) string {
	if name == "" {
		return key
	}
	return name + "/" + key
}

// Get returns the breaker of a key.
func (r *Registry) Get(key string) *Breaker {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if e, ok := r.byKey[key]; ok {
		r.recent.MoveToFront(e)
		held := e.Value.(*entry)
		held.used = now
		return held.b
	}
	if len(r.byKey) >= r.max && !r.evict(now) {
		return r.overflow
	}
	cfg := r.cfg
	cfg.Name = named(cfg.Name, key)
	b, err := New(cfg)
	if err != nil { // the same Config was good in NewRegistry
		return r.overflow
	}
	r.byKey[key] = r.recent.PushFront(&entry{key, b, now})
	return b
}

// evictLook bounds how many breakers are looked at for one that may go.
const evictLook = 64

func (r *Registry) evict(now time.Time) bool {
	e := r.recent.Back()
	for range evictLook {
		if e == nil {
			return false
		}
		victim := e.Value.(*entry)
		if victim.b.quiet() || now.Sub(victim.used) >= r.idle && !victim.b.era.Load().forced {
			r.recent.Remove(e)
			delete(r.byKey, victim.key)
			return true
		}
		prev := e.Prev()
		r.recent.MoveToFront(e) // so that the next look begins elsewhere
		e = prev
	}
	return false
}

// Each calls fn for every breaker held, until it returns false.
func (r *Registry) Each(fn func(key string, b *Breaker) bool) {
	r.mu.Lock()
	var all []*entry
	for e := r.recent.Front(); e != nil; e = e.Next() {
		all = append(all, e.Value.(*entry))
	}
	r.mu.Unlock()
	for _, e := range all {
		if !fn(e.key, e.b) {
			return
		}
	}
}
