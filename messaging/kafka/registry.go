package kafka

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sillar-go/sillar/internal/backoff"
	"github.com/sillar-go/sillar/messaging"
)

// registry follows the topic that holds the patterns of every group. Kafka knows the topics that a group's members
// consume, but not which of their events a group takes: without the registry, a process of an older version would pass
// over what only a newer version subscribes to.
type registry struct {
	b     *Broker
	topic string

	mu      sync.Mutex
	running bool
	next    int64 // the offset behind the last record that was read
	groups  map[string]*binding
	changed chan struct{} // closed with the next change
}

// binding is what a group takes, and where it begins.
type binding struct {
	patterns []string
	starts   map[place]int64
}

// bound is the value of a record of the registry; its key is group and pattern.
type bound struct {
	Group   string                     `json:"group"`
	Pattern string                     `json:"pattern"`
	Start   map[string]map[int32]int64 `json:"start,omitempty"` // offsets by Kafka topic and partition
}

func newRegistry(b *Broker) *registry {
	return &registry{b: b, topic: b.cfg.Prefix + ".sillar.bindings", groups: map[string]*binding{},
		changed: make(chan struct{})}
}

// current returns what a group takes by now.
func (r *registry) current(ctx context.Context, group string) (binding, error) {
	if err := r.b.ensure(ctx, r.topic); err != nil {
		return binding{}, err
	}
	var end int64
	err := r.b.call(ctx, func(ctx context.Context) error {
		if err := r.follow(); err != nil {
			return err
		}
		ends, err := listed(r.b.adm.ListEndOffsets(ctx, r.topic))
		o, _ := ends.Lookup(r.topic, 0)
		end = o.Offset
		return err
	})
	if err != nil {
		return binding{}, err
	}
	return r.await(ctx, group, func() bool { return r.next >= end })
}

// await waits until ok, which is called with the mutex held, and returns what a group takes.
func (r *registry) await(ctx context.Context, group string, ok func() bool) (binding, error) {
	for {
		r.mu.Lock()
		if ok() {
			defer r.mu.Unlock()
			if g := r.groups[group]; g != nil {
				return binding{slices.Clone(g.patterns), g.starts}, nil
			}
			return binding{}, nil
		}
		changed := r.changed
		r.mu.Unlock()
		select {
		case <-changed:
		case <-r.b.ctx.Done():
			return binding{}, messaging.ErrClosed
		case <-ctx.Done():
			return binding{}, fmt.Errorf("%w: the patterns of groups cannot be read: %w", messaging.ErrBlocked,
				r.b.reason(ctx.Err()))
		}
	}
}

// follow reads the topic from now on until the broker is closed.
func (r *registry) follow() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.running {
		return nil
	}
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{r.topic: {0: kgo.NewOffset().AtStart()}}),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(time.Second),
	}, r.b.opts...)...)
	if err != nil {
		return err
	}
	r.running = true
	r.b.wg.Go(func() {
		defer cl.Close()
		for r.b.ctx.Err() == nil {
			fetches := cl.PollFetches(r.b.ctx)
			r.apply(fetches.Records())
			if fetches.Err() != nil {
				_ = backoff.Sleep(r.b.ctx, firstPause) // the client pauses by itself
			}
		}
	})
	return nil
}

// apply takes records over, and tells the streams of their groups.
func (r *registry) apply(records []*kgo.Record) {
	if len(records) == 0 {
		return
	}
	groups := map[string][]string{}
	r.mu.Lock()
	for _, record := range records {
		r.next = record.Offset + 1
		var v bound
		if json.Unmarshal(record.Value, &v) != nil || v.Group == "" { // of another program
			continue
		}
		g := r.groups[v.Group]
		if g == nil {
			g = &binding{starts: map[place]int64{}}
			r.groups[v.Group] = g
		}
		if !slices.Contains(g.patterns, v.Pattern) {
			g.patterns = append(g.patterns, v.Pattern)
		}
		g.starts = merged(g.starts, v.Start)
		groups[v.Group] = slices.Clone(g.patterns)
	}
	close(r.changed)
	r.changed = make(chan struct{})
	r.mu.Unlock()
	for _, s := range r.b.subscribed() {
		if patterns := groups[s.sub.Group]; patterns != nil {
			s.bind(patterns)
		}
	}
}

// merged returns a new map with the lower one of two offsets: processes that make a group at the same time may see
// different ends.
func merged(have map[place]int64, more map[string]map[int32]int64) map[place]int64 {
	all := make(map[place]int64, len(have))
	for at, o := range have {
		all[at] = o
	}
	for topic, partitions := range more {
		for id, o := range partitions {
			at := place{topic, id}
			if before, ok := all[at]; !ok || o < before {
				all[at] = o
			}
		}
	}
	return all
}

// starts returns where a group begins.
func (r *registry) starts(group string) map[place]int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if g := r.groups[group]; g != nil {
		return g.starts
	}
	return nil
}

// patterns returns what a group takes, as far as is known.
func (r *registry) patterns(group string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if g := r.groups[group]; g != nil {
		return slices.Clone(g.patterns)
	}
	return nil
}

// learning is how long the other processes of a group have to learn a new pattern before Subscribe returns. They follow
// the registry, and have it within milliseconds.
const learning = 500 * time.Millisecond

// bind adds patterns to a group, and returns all that it takes. A topic that the group has not taken before begins at
// sub.Start.
func (r *registry) bind(ctx context.Context, sub messaging.Subscription) (binding, error) {
	have, err := r.current(ctx, sub.Group)
	if err != nil {
		return have, err
	}
	var missing []string
	for _, p := range sub.Patterns {
		if !slices.Contains(have.patterns, p) && !slices.Contains(missing, p) {
			missing = append(missing, p)
		}
	}
	if len(missing) == 0 {
		return have, nil
	}
	before, err := r.b.topicsOf(ctx, have.patterns)
	if err != nil {
		return have, err
	}
	after, err := r.b.topicsOf(ctx, missing)
	if err != nil {
		return have, err
	}
	after = slices.DeleteFunc(after, func(t string) bool { return slices.Contains(before, t) })
	start := map[string]map[int32]int64{}
	err = r.b.call(ctx, func(ctx context.Context) error {
		all, err := r.b.positions(ctx, sub.Start, after)
		for topic, partitions := range all {
			start[topic] = map[int32]int64{}
			for id, o := range partitions {
				start[topic][id] = o.Offset
			}
		}
		return err
	})
	if err != nil {
		return have, err
	}
	for i, p := range missing {
		v := bound{Group: sub.Group, Pattern: p}
		if i == 0 { // they are the group's
			v.Start = start
		}
		value, err := json.Marshal(v)
		if err != nil {
			return have, err
		}
		record := &kgo.Record{Topic: r.topic, Key: []byte(sub.Group + "\n" + p), Value: value}
		if err := r.b.move(ctx, record); err != nil {
			return have, err
		}
	}
	if len(have.patterns) > 0 {
		if err := backoff.Sleep(ctx, learning); err != nil {
			return have, err
		}
	}
	return r.await(ctx, sub.Group, func() bool {
		g := r.groups[sub.Group]
		return g != nil && !slices.ContainsFunc(missing, func(p string) bool { return !slices.Contains(g.patterns, p) })
	})
}

// topicsOf returns the topics of Kafka that patterns select: those that they name, and those that exist.
func (b *Broker) topicsOf(ctx context.Context, patterns []string) ([]string, error) {
	sel, err := b.selected(patterns)
	if err != nil || !sel.every {
		return sel.topics, err
	}
	err = b.call(ctx, func(ctx context.Context) error {
		all, err := b.adm.ListTopics(ctx)
		for name := range all {
			if b.isEventTopic(name) && !slices.Contains(sel.topics, name) && b.selects(patterns, name) {
				sel.topics = append(sel.topics, name)
			}
		}
		return err
	})
	return sel.topics, err
}

// selects reports whether one of the patterns may match a topic that a Kafka topic holds.
func (b *Broker) selects(patterns []string, topic string) bool {
	word := strings.TrimPrefix(topic, b.cfg.Prefix+".")
	return slices.ContainsFunc(patterns, func(p string) bool {
		first, _, _ := strings.Cut(p, ".")
		return first == "*" || first == "#" || first == word
	})
}
