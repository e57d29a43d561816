package messaging

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/sillar-go/sillar/internal/correlation"
	"github.com/sillar-go/sillar/messaging/internal/topics"
)

const scope = "github.com/sillar-go/sillar/messaging"

// HandlerFunc handles one message. What it returns settles the message: nil acknowledges it, an error has it tried
// again, Permanent gives it up, RetryAfter says when.
type HandlerFunc func(ctx context.Context, m Message[[]byte]) error

// Middleware wraps the handlers of a router or of a group.
type Middleware func(HandlerFunc) HandlerFunc

// RouterConfig tunes a Router. The zero value is useful.
type RouterConfig struct {
	// Logger gets failed attempts (warn) and dead letters (error). Default slog.Default().
	Logger *slog.Logger
	// TracerProvider makes a span per handled message. Default the global one.
	TracerProvider trace.TracerProvider
	// MeterProvider takes sillar.messaging.handled and its duration. Default the global one.
	MeterProvider metric.MeterProvider
	// Propagator reads correlation id and trace from the headers. Default both.
	Propagator propagation.TextMapPropagator
	// DrainTimeout bounds how long running handlers may go on after Run's context ends; then their context is
	// cancelled, and five seconds later Run returns with ErrDrain whatever they do. Default 30s; negative: they are
	// cancelled at once.
	DrainTimeout time.Duration
	// Middleware wraps every handler, the first outermost.
	Middleware []Middleware
	// Codecs decode bodies of their content types for typed handlers. Default none beside JSON; []byte and json.RawMessage
	// take a body of any other type as it is.
	Codecs []Codec
}

// Router hands the messages of groups to their handlers.
type Router struct {
	sub    Subscriber
	cfg    RouterConfig
	tracer trace.Tracer
	meters meters
	codecs codecs

	mu      sync.Mutex
	groups  []*Group
	names   map[string]bool
	started bool
	running chan struct{} // closed when all groups consume
}

type meters struct {
	handled  metric.Int64Counter
	duration metric.Float64Histogram
}

// NewRouter makes a router over a broker.
func NewRouter(sub Subscriber, cfg RouterConfig) (*Router, error) {
	if sub == nil {
		return nil, errors.New("messaging: NewRouter wants a Subscriber")
	}
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	cfg.TracerProvider = cmp.Or(cfg.TracerProvider, otel.GetTracerProvider())
	cfg.MeterProvider = cmp.Or(cfg.MeterProvider, otel.GetMeterProvider())
	cfg.Propagator = cmp.Or(cfg.Propagator, correlation.DefaultPropagator())
	if cfg.DrainTimeout == 0 {
		cfg.DrainTimeout = 30 * time.Second
	}
	r := &Router{sub: sub, cfg: cfg, tracer: cfg.TracerProvider.Tracer(scope), names: map[string]bool{},
		running: make(chan struct{})}
	var err error
	if r.codecs, err = newCodecs(cfg.Codecs); err != nil {
		return nil, err
	}
	m := cfg.MeterProvider.Meter(scope)
	var err1, err2 error
	r.meters.handled, err1 = m.Int64Counter("sillar.messaging.handled", metric.WithUnit("{message}"),
		metric.WithDescription("Messages handled, by group, topic (the handler's pattern) and outcome (ack, retry, dead, "+
			"requeue, duplicate)."))
	r.meters.duration, err2 = m.Float64Histogram("sillar.messaging.duration", metric.WithUnit("s"),
		metric.WithDescription("Time that a handler took for one attempt."),
		metric.WithExplicitBucketBoundaries(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60))
	return r, errors.Join(err1, err2)
}

// Must returns v, or panics with err when it is not nil.
func Must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// GroupConfig tunes a group. The zero value is useful.
type GroupConfig struct {
	// Concurrency is how many handlers of the group run at once in this process. Default 1.
	Concurrency int
	// Prefetch is how many messages the broker hands out ahead. Default three times Concurrency; more is faster with
	// short handlers, less spreads a small load over many processes.
	Prefetch int
	// Retry says how often and how fast failed messages are tried again.
	Retry Retry
	// Unhandled is the retry policy for messages that no handler of this process takes, such as those of a new topic while
	// a new version of the service rolls out and processes of the old version consume from the same queue. These attempts
	// do not count as attempts of a handler. Default 30 attempts, Exponential(time.Second, 30*time.Second): about 12
	// minutes until the message becomes a dead letter. One attempt makes it a dead letter at once; negative: no limit.
	Unhandled Retry
	// BlockingRetry makes the attempts of a message where it is: the worker waits for the backoff and tries again, so with
	// Ordered no later message of its key overtakes it, and neither do others that share the worker. Attempts are counted
	// anew when the message comes to another process. The attempts and pauses together have to stay below the broker's own
	// limit (RabbitMQ: consumer_timeout, 30 minutes; Kafka: Config.RevokeWait while partitions move). A message that
	// becomes a dead letter, or has no handler in this process, no longer holds up its key. Default false: the broker
	// delivers it again later.
	BlockingRetry bool
	// Dedup applies each message once. Default none: handlers see duplicates.
	Dedup Deduplicator
	// Ordered handles the messages of one key one at a time within a process, in the order in which they came. Messages
	// that are retried come later (not so with BlockingRetry), and so may, over RabbitMQ, those that a drain gives back:
	// SingleActive and Partitions keep their place. Default false.
	Ordered bool
	// Ephemeral gives each process a queue of its own, such as for caches that every process has to invalidate: it gets
	// the events from when it runs, and is removed with it. What is given up is logged and dropped. Default false.
	Ephemeral bool
	// SingleActive has one process of all that run the group handle its messages at a time: with Ordered the order of a
	// key holds across processes, also when one of them is shut down or killed. The other processes wait, so capacity does
	// not grow with their number. A group's queue keeps what it was made with. Default false.
	SingleActive bool
	// Partitions divides the keys of the group among so many partitions, at most 64: several processes handle the group at
	// once, and those of one partition's keys are handled by one process at a time. The processes share the partitions
	// evenly as they come and go. It implies Ordered, so the order of a key holds across processes, also when one of them
	// is shut down. More partitions than processes spread the keys more evenly; over RabbitMQ each costs a queue, and each
	// process a channel on it. Over Kafka they are those of the topics, whatever the number. All processes of a group
	// have the same number. Default 0: none.
	Partitions int
	// Timeout bounds each attempt: the handler's context ends after it, and the attempt counts as failed by what the
	// handler returns. Set it below the broker's own limit (RabbitMQ: consumer_timeout, 30 minutes). Default none.
	Timeout time.Duration
	// Middleware wraps the handlers of the group, the first outermost, inside RouterConfig.Middleware.
	Middleware []Middleware
	// Start is where a group that does not exist yet begins: see Subscription.Start. Default: with what is published
	// from then on.
	Start Start
}

// Group is a queue and the handlers of what comes out of it.
type Group struct {
	name   string
	cfg    GroupConfig
	router *Router

	exact    map[string]HandlerFunc // both are guarded by the router's mutex until it runs
	patterns []patternHandler
}

type patternHandler struct {
	pattern string
	h       HandlerFunc
}

// Group adds a group. Its name is the queue's. It panics when no group may have the name (see Subscription.Group) or
// another one of this router has it, or when the router runs: those are mistakes of the program.
func (r *Router) Group(name string, cfg GroupConfig) *Group {
	if err := topics.ValidGroup(name); err != nil {
		panic(fmt.Errorf("%w: %w", ErrInvalid, err))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.names[name] || r.started {
		panic(fmt.Sprintf("messaging: group %q: the name is taken, or the router runs", name))
	}
	cfg.Concurrency = max(cfg.Concurrency, 1)
	cfg.Ordered = cfg.Ordered || cfg.Partitions > 0
	if cfg.Prefetch <= 0 {
		cfg.Prefetch = 3 * cfg.Concurrency
	}
	cfg.Retry.Attempts = cmp.Or(cfg.Retry.Attempts, 5)
	cfg.Retry.Backoff = cmp.Or(cfg.Retry.Backoff, Exponential(time.Second, time.Minute))
	cfg.Unhandled.Attempts = cmp.Or(cfg.Unhandled.Attempts, 30)
	cfg.Unhandled.Backoff = cmp.Or(cfg.Unhandled.Backoff, Exponential(time.Second, 30*time.Second))
	g := &Group{name: name, cfg: cfg, router: r, exact: map[string]HandlerFunc{}}
	r.names[name] = true
	r.groups = append(r.groups, g)
	return g
}

// HandleRaw handles the bodies of a pattern's messages as bytes. An exact topic goes before a pattern, an earlier
// pattern before a later one. It panics on a malformed or repeated pattern, and when the router runs.
func HandleRaw(g *Group, pattern string, h HandlerFunc) {
	if err := topics.Valid(pattern); err != nil {
		panic(fmt.Errorf("%w: %w", ErrInvalid, err))
	}
	g.router.mu.Lock()
	defer g.router.mu.Unlock()
	if g.router.started {
		panic(fmt.Sprintf("messaging: group %s: a handler for %q comes too late, the router runs", g.name, pattern))
	}
	for _, m := range slices.Backward(slices.Concat(g.router.cfg.Middleware, g.cfg.Middleware)) {
		h = m(h)
	}
	repeated := g.exact[pattern] != nil
	for _, p := range g.patterns {
		repeated = repeated || p.pattern == pattern
	}
	if repeated {
		panic(fmt.Sprintf("messaging: group %s already handles %q", g.name, pattern))
	}
	if topics.IsPattern(pattern) {
		g.patterns = append(g.patterns, patternHandler{pattern, h})
		return
	}
	g.exact[pattern] = h
}

// Handle handles a pattern's messages with bodies decoded into T, by their content type: JSON, or what
// RouterConfig.Codecs has. A body that does not decode becomes a dead letter at once.
func Handle[T any](g *Group, pattern string, h func(ctx context.Context, m Message[T]) error) {
	HandleRaw(g, pattern, func(ctx context.Context, raw Message[[]byte]) error {
		m := Message[T]{Envelope: raw.Envelope, Attempt: raw.Attempt}
		if err := g.router.codecs.decode(raw.ContentType, raw.Body, &m.Data); err != nil {
			return Permanent(fmt.Errorf("%w: %s: %w", ErrDecode, raw.Type, err))
		}
		return h(ctx, m)
	})
}

// handler returns what handles a topic, and its pattern; nil and noHandler when nothing does.
func (g *Group) handler(topic string) (HandlerFunc, string) {
	if h := g.exact[topic]; h != nil {
		return h, topic
	}
	for _, p := range g.patterns {
		if topics.Match(p.pattern, topic) {
			return p.h, p.pattern
		}
	}
	return nil, noHandler
}

// noHandler stands for a pattern in metrics: what others publish must not make series without number.
const noHandler = "(none)"

func (g *Group) subscription() Subscription {
	s := Subscription{
		Group:        g.name,
		Prefetch:     g.cfg.Prefetch,
		Ephemeral:    g.cfg.Ephemeral,
		SingleActive: g.cfg.SingleActive,
		Partitions:   g.cfg.Partitions,
		Start:        g.cfg.Start,
	}
	for t := range g.exact {
		s.Patterns = append(s.Patterns, t)
	}
	for _, p := range g.patterns {
		s.Patterns = append(s.Patterns, p.pattern)
	}
	return s
}

// Running returns a channel that is closed when all groups have their queues and consume: what is published then
// reaches them.
func (r *Router) Running() <-chan struct{} { return r.running }

// Run subscribes all groups and handles their messages until ctx ends; then it drains and returns nil. It returns an
// error when a subscription is refused or broken for good; the other groups are drained first. It runs once.
func (r *Router) Run(ctx context.Context) error {
	r.mu.Lock()
	if r.started {
		r.mu.Unlock()
		return errors.New("messaging: the router has already run")
	}
	r.started = true
	groups := r.groups
	r.mu.Unlock()

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	streams := make([]Stream, 0, len(groups))
	for _, g := range groups {
		s, err := r.sub.Subscribe(ctx, g.subscription())
		if err != nil {
			for _, s := range streams {
				err = errors.Join(err, s.Close())
			}
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("messaging: subscribe group %s: %w", g.name, err)
		}
		streams = append(streams, s)
	}
	close(r.running)
	errs := make([]error, len(groups))
	var wg sync.WaitGroup
	for i, g := range groups {
		wg.Go(func() {
			if errs[i] = g.run(ctx, streams[i]); errs[i] != nil {
				stop()
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
