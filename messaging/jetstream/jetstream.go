package jetstream

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/driver"
	"github.com/sillar-go/sillar/messaging/internal/brokermetrics"
)

// Errors of this package, to be compared with errors.Is.
var (
	// ErrURL is returned by New for a URL that does not parse. It does not quote the URL.
	ErrURL = errors.New("jetstream: unusable URL: want nats:// or tls://, user, password, and hosts with ports, " +
		"separated by commas")
	// ErrTopology says that a stream exists with other properties than those asked for, that the server cannot make it as
	// asked for or, with Config.Passive, that it does not exist.
	ErrTopology = errors.New("jetstream: a stream or consumer is missing or has other properties")
	// ErrPermission says that the server refuses user, password or credentials, or that the user lacks a permission. The
	// broker tries again from time to time.
	ErrPermission = errors.New("jetstream: the user lacks a permission")
	// ErrPattern says that NATS cannot express a pattern of a subscription. It matches messaging.ErrInvalid.
	ErrPattern = fmt.Errorf("%w: NATS cannot express a pattern", messaging.ErrInvalid)
)

const scope = "github.com/sillar-go/sillar/messaging/jetstream"

// Config tunes a Broker.
type Config struct {
	// Source names the service in the events it publishes. Required for publishing events that name none.
	Source string
	// Stream is the stream of events, and the first word of their subjects. Default "microservices".
	Stream string
	// Replicas is on how many servers of a cluster the streams are kept, from 1 to 5: with 3 one server may fail. It is
	// used when a stream is made; one that exists keeps its number. Default 1.
	Replicas int
	// Keep is for how long the stream keeps events whether they were handled or not, so that new groups can begin with
	// them (Features.Replay). A group that is behind by more loses what is older. It is used when a stream is made; one
	// that exists in the other way is an ErrTopology. Default 0: until each group that takes them has acknowledged them.
	Keep time.Duration
	// Duplicates is within which time the server recognizes a message that it has stored already. It is longer than
	// PublishTimeout, and used when a stream is made. Default 2m.
	Duplicates time.Duration
	// AckWait is how long after its process or connection was lost a message comes again. Shorter is faster, and takes
	// more messages to the server that extend the time of running handlers. It is used when a group is made; one that
	// exists keeps its own. Default 30s.
	AckWait time.Duration
	// DeliveryLimit makes a dead letter of a message that was delivered so often without being settled, such as one that
	// kills its process. Giving back at a drain counts too. Default 20; negative: none.
	DeliveryLimit int
	// Name is shown for the connection by the server. Default Source.
	Name string
	// TLS is used with tls://, and where the server requires it. Default: the system's roots.
	TLS *tls.Config
	// Credentials is the path of a credentials file (JWT and NKey seed). Default none: user and password of the URL.
	Credentials string
	// Passive makes no streams: an operator makes them (see the package's topology), and those that are missing are an
	// ErrTopology. Consumers are made in any case. Default false.
	Passive bool
	// Logger gets lost connections (warn) and streams that do not fit (error). Default slog.Default().
	Logger *slog.Logger
	// Propagator writes correlation id and trace into the headers. Default both.
	Propagator propagation.TextMapPropagator
	// TracerProvider makes a producer span for each event that is published. Default the global one.
	TracerProvider trace.TracerProvider
	// MeterProvider takes sillar.jetstream.published and sillar.jetstream.connections_lost. Default the global one.
	MeterProvider metric.MeterProvider
	// Reconnect is the pause between attempts to connect, and to repeat what failed; there is no limit to their number.
	// Default messaging.Exponential(100*time.Millisecond, 15*time.Second).
	Reconnect messaging.Backoff
	// PublishTimeout bounds Publish and PublishBatch beside their contexts, waits for a connection included.
	// Default 30s; negative: only the context does.
	PublishTimeout time.Duration
	// ReportUnknown makes Publish return ErrUnknownOutcome when the connection breaks before the confirm. Default
	// false: the message is published again under the same id, and the server stores it once.
	ReportUnknown bool
}

// Broker is a messaging.Broker. It is safe for concurrent use.
type Broker struct {
	cfg      Config
	meters   brokermetrics.Meters
	producer driver.Producer
	link     *link

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup
	end    sync.Once

	declaring chan struct{} // holds one token: who has it declares the streams

	mu       sync.Mutex
	streams  map[*stream]struct{}
	declared bool
}

var (
	_ messaging.Broker   = (*Broker)(nil)
	_ messaging.Featured = (*Broker)(nil)
)

var streamName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,100}$`)

// New returns a Broker, which connects in the background: a server that is down at the moment is no error. Health tells
// whether it is connected. The URL may name several servers, nats://host1:4222,host2:4222; further ones of their
// cluster are learnt from them.
func New(url string, cfg Config) (*Broker, error) {
	servers, err := parse(url)
	if err != nil {
		return nil, err
	}
	cfg.Stream = cmp.Or(cfg.Stream, "microservices")
	if !streamName.MatchString(cfg.Stream) {
		return nil, fmt.Errorf("jetstream: Config.Stream %q: want 1 to 100 letters, digits, - and _", cfg.Stream)
	}
	cfg.Replicas = cmp.Or(cfg.Replicas, 1)
	if cfg.Replicas < 1 || cfg.Replicas > 5 {
		return nil, fmt.Errorf("jetstream: Config.Replicas %d: want 1 to 5", cfg.Replicas)
	}
	cfg.Keep = max(cfg.Keep, 0)
	cfg.Duplicates = cmp.Or(max(cfg.Duplicates, 0), 2*time.Minute)
	cfg.AckWait = cmp.Or(max(cfg.AckWait, 0), 30*time.Second)
	cfg.DeliveryLimit = cmp.Or(cfg.DeliveryLimit, 20)
	cfg.Name = cmp.Or(cfg.Name, cfg.Source)
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	cfg.Reconnect = cmp.Or(cfg.Reconnect, messaging.Exponential(100*time.Millisecond, 15*time.Second))
	cfg.PublishTimeout = cmp.Or(cfg.PublishTimeout, 30*time.Second)
	if cfg.Keep > 0 {
		cfg.Duplicates = min(cfg.Duplicates, cfg.Keep) // the server wants it so
	}
	m, err := brokermetrics.New(cfg.MeterProvider, scope, "jetstream")
	if err != nil {
		return nil, err
	}
	b := &Broker{cfg: cfg, meters: m, streams: map[*stream]struct{}{}, declaring: make(chan struct{}, 1),
		producer: driver.NewProducer(cfg.TracerProvider, cfg.Propagator, scope, "nats", cfg.Source)}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	if b.link, err = newLink(b, servers); err != nil {
		b.cancel()
		return nil, err
	}
	return b, nil
}

// Must returns b or panics with err.
func Must(b *Broker, err error) *Broker {
	if err != nil {
		panic(err)
	}
	return b
}

// Features implements messaging.Featured.
func (b *Broker) Features() messaging.Features {
	return messaging.Features{Delays: true, Replay: b.cfg.Keep > 0}
}

// Publish implements messaging.Publisher.
func (b *Broker) Publish(ctx context.Context, topic string, payload any, opts ...messaging.Option) error {
	e, span, err := b.producer.New(ctx, topic, payload, opts...)
	o := &outgoing{msgs: make([]*nats.Msg, 1), errs: []error{err}, room: headroom}
	if err == nil {
		if o.msgs[0], o.errs[0] = b.encode(e); o.errs[0] == nil {
			b.send(ctx, o)
		}
	}
	b.meters.Published(ctx, o.errs)
	b.producer.End(span, o.errs[0])
	return o.errs[0]
}

// PublishBatch implements messaging.Publisher.
func (b *Broker) PublishBatch(ctx context.Context, events []messaging.Envelope) error {
	spans := make([]trace.Span, len(events))
	o := &outgoing{msgs: make([]*nats.Msg, len(events)), errs: make([]error, len(events)), room: headroom}
	fill := b.producer.Fill(ctx)
	o.prepare = func(i int) (*nats.Msg, error) {
		e, span, err := fill(events[i])
		if spans[i] = span; err != nil {
			return nil, err
		}
		return b.encode(e)
	}
	b.send(ctx, o)
	b.meters.Published(ctx, o.errs)
	for i, span := range spans {
		b.producer.End(span, o.errs[i])
	}
	return driver.Batch(o.errs)
}

// healthTimeout bounds Health beside its context.
const healthTimeout = 5 * time.Second

// Health implements messaging.Broker: it returns nil when the connection is up, the stream of events has a leader, and
// the consumer of every group that was subscribed has one.
func (b *Broker) Health(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	js, err := b.ready(ctx)
	if err != nil {
		return err
	}
	s, err := js.Stream(ctx, b.cfg.Stream)
	if err != nil {
		return fmt.Errorf("%w: stream %s: %w", messaging.ErrBlocked, b.cfg.Stream, err)
	}
	if c := s.CachedInfo().Cluster; c != nil && c.Leader == "" && c.Name != "" {
		return fmt.Errorf("%w: stream %s has no leader", messaging.ErrBlocked, b.cfg.Stream)
	}
	for _, sub := range b.subscribed() {
		if _, err := js.Consumer(ctx, b.cfg.Stream, sub.consumer); err != nil {
			return fmt.Errorf("%w: group %s does not consume: %w", messaging.ErrBlocked, sub.sub.Group, err)
		}
	}
	return nil
}

// subscribed returns the streams that have not been closed.
func (b *Broker) subscribed() []*stream {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Collect(maps.Keys(b.streams))
}

// Close implements messaging.Broker. Deliveries that have not been settled go back to their groups.
func (b *Broker) Close() error {
	var errs []error
	for _, s := range b.subscribed() {
		errs = append(errs, s.Close())
	}
	b.end.Do(func() {
		b.cancel()
		b.link.close()
	})
	b.wg.Wait()
	return errors.Join(errs...)
}

// closed reports whether Close has been called.
func (b *Broker) closed() bool { return b.ctx.Err() != nil }
