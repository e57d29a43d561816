package kafka

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/driver"
)

// maxWaiting bounds the retries of one stream that are held until they are due. Beyond that, what comes behind them in
// the group's retry topic waits for them.
const maxWaiting = 1000

// place is a partition.
type place struct {
	topic     string
	partition int32
}

// partition is one that the group's coordinator has given to a stream. The stream's mutex guards it.
type partition struct {
	place
	position
	held    int  // deliveries that were received and not settled
	leaving bool // it goes to another member: nothing more is delivered
	gone    bool // it is another member's
	dirty   bool // something has been settled since the last commit
}

// stream is a subscription: one member of a consumer group.
type stream struct {
	b     *Broker
	sub   messaging.Subscription
	retry string // the group's retry topic
	cl    *kgo.Client
	made  chan struct{} // closed when cl is there: the client joins the group while it is made

	ctx     context.Context // ends with Stop
	cancel  context.CancelFunc
	polling sync.WaitGroup
	over    chan struct{}   // closed when the group has been left
	tending context.Context // of what tend commits: it ends when the group is left
	retire  func()          // ends tending
	leave   func()          // leaves the group, once
	giveUp  func()          // ends all that the client does

	arrived    chan struct{} // holds a token when something may be received
	room       chan struct{} // holds a token when something may be polled
	wake       chan struct{} // holds a token when the next due retry has changed
	free       chan struct{} // holds a token when a held delivery has been settled
	committing sync.Mutex    // held while offsets are committed: never two at a time

	look chan struct{} // holds a token when topics may have to be added

	topics  []string // of events, that are consumed; of tend
	lagging atomic.Int64

	mu       sync.Mutex
	patterns []string // of the group
	parts    map[place]*partition
	ready    []*delivery // to be received
	waiting  dueHeap     // retries that are not due
	paused   bool        // the retry topic is not fetched
	held     int         // received and not settled, of partitions that are not gone
	failed   error       // of the last fetch
	failing  time.Time   // when that was
	stopped  bool
	closed   bool
}

// Subscribe implements messaging.Subscriber. It waits, as long as ctx lets it, for the cluster to be reachable. The
// stream joins its group in the background.
func (b *Broker) Subscribe(ctx context.Context, sub messaging.Subscription) (messaging.Stream, error) {
	if err := driver.Check(sub, b.Features()); err != nil {
		return nil, err
	}
	if b.closed() || b.leaving() {
		return nil, messaging.ErrClosed
	}
	sel, err := b.selected(sub.Patterns)
	if err != nil {
		return nil, err
	}
	sub.Prefetch = max(sub.Prefetch, 1)
	s := &stream{b: b, sub: sub, retry: b.retryTopic(sub.Group), over: make(chan struct{}), made: make(chan struct{}),
		arrived: make(chan struct{}, 1), room: make(chan struct{}, 1), wake: make(chan struct{}, 1),
		free: make(chan struct{}, 1), look: make(chan struct{}, 1), parts: map[place]*partition{}}
	if err := b.ensure(ctx, append([]string{s.retry, b.deadTopic(sub.Group)}, sel.topics...)...); err != nil {
		return nil, fmt.Errorf("kafka: subscribe %s: %w", sub.Group, err)
	}
	bound, err := b.registry.bind(ctx, sub)
	if err != nil {
		return nil, fmt.Errorf("kafka: subscribe %s: %w", sub.Group, err)
	}
	s.patterns = bound.patterns
	if s.topics, err = b.topicsOf(ctx, s.patterns); err != nil {
		return nil, fmt.Errorf("kafka: subscribe %s: %w", sub.Group, err)
	}
	s.ctx, s.cancel = context.WithCancel(b.ctx)
	s.tending, s.retire = context.WithCancel(b.ctx)
	s.leave = sync.OnceFunc(s.leaveGroup)
	life, end := context.WithCancel(context.Background())
	s.giveUp = end
	s.cl, err = kgo.NewClient(slices.Concat(s.options(), b.opts, []kgo.Opt{kgo.WithContext(life)})...)
	close(s.made)
	if err != nil {
		s.giveUp()
		s.retire()
		s.cancel()
		return nil, fmt.Errorf("kafka: subscribe %s: %w", sub.Group, err)
	}
	b.mu.Lock()
	closing := b.leaving()
	if !closing {
		b.streams[s] = struct{}{}
		s.polling.Add(1)
		b.wg.Add(1)
	}
	b.mu.Unlock()
	if closing {
		s.cancel()
		s.leave()
		return nil, messaging.ErrClosed
	}
	go func() { defer s.polling.Done(); s.poll() }()
	go func() { defer b.wg.Done(); s.tend() }()
	s.bind(b.registry.patterns(sub.Group)) // what was added since they were read
	return s, nil
}

// rejoin is what a member needs to join a rebalance beside what its handlers and its last commit take.
const rejoin = 2 * time.Second

func (s *stream) options() []kgo.Opt {
	session := s.b.cfg.SessionTimeout
	heartbeat := session / 15 // by which a member learns of a rebalance
	return []kgo.Opt{
		kgo.ConsumeTopics(append([]string{s.retry}, s.topics...)...),
		kgo.ConsumerGroup(s.b.groupID(s.sub.Group)), kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(),
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.SessionTimeout(session), kgo.HeartbeatInterval(heartbeat),
		// Not longer: a group waits twice for it when members were killed while they joined.
		kgo.RebalanceTimeout(max(s.b.cfg.RevokeWait, 0) + closeTimeout + heartbeat + rejoin),
		// A partition without a commit was made after the group; what retention has deleted is passed over.
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.AdjustFetchOffsetsFn(s.assigned),
		kgo.OnPartitionsRevoked(s.revoked), kgo.OnPartitionsLost(s.lost),
		kgo.FetchMaxWait(500 * time.Millisecond),
	}
}

// bind adds patterns; none is ever removed.
func (s *stream) bind(patterns []string) {
	s.mu.Lock()
	for _, p := range patterns {
		if !slices.Contains(s.patterns, p) {
			s.patterns = append(slices.Clip(s.patterns), p) // discover reads the slice that was
		}
	}
	s.mu.Unlock()
	signal(s.look)
}

// discover consumes topics that are new, or that new patterns select.
func (s *stream) discover() {
	s.mu.Lock()
	patterns := s.patterns
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(s.ctx, s.b.cfg.Refresh)
	defer cancel()
	topics, err := s.b.topicsOf(ctx, patterns)
	if err != nil {
		if s.ctx.Err() == nil {
			s.b.cfg.Logger.Warn("kafka: cannot look for new topics", "group", s.sub.Group, "error", err)
		}
		return
	}
	topics = slices.DeleteFunc(topics, func(t string) bool { return slices.Contains(s.topics, t) })
	if len(topics) > 0 {
		s.topics = append(s.topics, topics...)
		s.cl.AddConsumeTopics(topics...)
	}
}

// poll takes records ahead of those that are out: as many as Prefetch, and again when half of them are left.
func (s *stream) poll() {
	defer s.cl.AllowRebalance()
	for s.ctx.Err() == nil {
		s.mu.Lock()
		ready := len(s.ready)
		s.mu.Unlock()
		if ready > s.sub.Prefetch/2 {
			select {
			case <-s.room:
			case <-s.ctx.Done():
			}
			continue
		}
		fetches := s.cl.PollRecords(s.ctx, s.sub.Prefetch-ready)
		if s.ctx.Err() == nil {
			s.takeAll(fetches)
		}
		s.cl.AllowRebalance()
	}
}

func (s *stream) takeAll(fetches kgo.Fetches) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return
	}
	if fetches.NumRecords() > 0 {
		s.failed = nil
	}
	fetches.EachError(func(topic string, partition int32, err error) {
		if errors.Is(err, context.Canceled) || errors.Is(err, kgo.ErrClientClosed) {
			return
		}
		s.failed, s.failing = permission(err), time.Now()
		s.b.cfg.Logger.Warn("kafka: cannot consume", "group", s.sub.Group, "kafka_topic", topic, "partition", partition,
			"error", s.failed)
	})
	fetches.EachPartition(s.take)
	s.limitWaiting()
	signal(s.arrived)
	signal(s.wake)
}

// take delivers the records of a partition that is this stream's. The mutex is held.
func (s *stream) take(fetched kgo.FetchTopicPartition) {
	p := s.parts[place{fetched.Topic, fetched.Partition}]
	if p == nil || p.leaving {
		return
	}
	for _, r := range fetched.Records {
		s.takeOne(p, r)
	}
}

// takeOne delivers a record unless it was settled before. The mutex is held.
func (s *stream) takeOne(p *partition, r *kgo.Record) {
	if !p.position.take(r.Offset) {
		return
	}
	e, m := s.b.decode(r)
	if r.Topic != s.retry && !slices.ContainsFunc(s.patterns, func(pattern string) bool {
		return driver.Match(pattern, e.Type)
	}) { // another topic that begins with the same word
		p.settle(r.Offset)
		p.dirty = true
		return
	}
	d := &delivery{s: s, p: p, offset: r.Offset, e: e, attempt: m.attempts + 1, unhandled: m.unhandled, due: m.due}
	if r.Topic == s.retry && time.Until(m.due) > 0 {
		heap.Push(&s.waiting, d)
		return
	}
	s.ready = append(s.ready, d)
}

// limitWaiting stops fetching retries while too many wait, and goes on when there is room. The mutex is held.
func (s *stream) limitWaiting() {
	switch n := len(s.waiting); {
	case n >= maxWaiting && !s.paused:
		s.paused = true
		s.cl.PauseFetchTopics(s.retry)
	case n <= maxWaiting/2 && s.paused:
		s.paused = false
		s.cl.ResumeFetchTopics(s.retry)
	}
}

// tend commits, and delivers retries that have become due, until the group has been left.
func (s *stream) tend() {
	commits, lags := time.NewTicker(s.b.cfg.CommitInterval), time.NewTicker(commitsPerLag*s.b.cfg.CommitInterval)
	looks := time.NewTicker(s.b.cfg.Refresh)
	defer looks.Stop()
	defer commits.Stop()
	defer lags.Stop()
	due := time.NewTimer(time.Hour)
	defer due.Stop()
	for {
		due.Reset(s.deliverDue())
		select {
		case <-commits.C:
			ctx, cancel := context.WithTimeout(s.tending, closeTimeout)
			s.commit(ctx)
			cancel()
		case <-lags.C:
			s.updateLag()
		case <-looks.C:
			signal(s.look)
		case <-s.look:
			s.discover()
		case <-due.C:
		case <-s.wake:
		case <-s.over:
			return
		}
	}
}

// Receive implements messaging.Stream.
func (s *stream) Receive(ctx context.Context) (messaging.Delivery, error) {
	for {
		if s.ctx.Err() != nil {
			return nil, messaging.ErrClosed
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		s.mu.Lock()
		if len(s.ready) > 0 && s.held < s.sub.Prefetch {
			d := s.ready[0]
			s.ready[0] = nil
			s.ready = s.ready[1:]
			s.held++
			d.p.held++
			if len(s.ready) == s.sub.Prefetch/2 {
				signal(s.room)
			}
			s.mu.Unlock()
			return d, nil
		}
		s.mu.Unlock()
		select {
		case <-s.arrived:
		case <-s.ctx.Done():
		case <-ctx.Done():
		}
	}
}

// failure is for how long an error of consuming shows in Health: the client repeats one that lasts.
const failure = 15 * time.Second

// health reports why the stream does not consume.
func (s *stream) health() error {
	_, generation := s.cl.GroupMetadata()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.stopped:
		return nil
	case s.failed != nil && time.Since(s.failing) < failure:
		return s.failed
	case generation < 0:
		return errors.New("kafka: it has not joined its group")
	}
	return nil
}

// signal puts a token into a channel that has none.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
