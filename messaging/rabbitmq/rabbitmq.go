package rabbitmq

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

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
	ErrURL = errors.New("rabbitmq: unusable URL: want amqp:// or amqps://, user, password, host, port, vhost")
	// ErrTopology says that a queue or the exchange exists with other properties than those asked for or, with
	// Config.Passive, does not exist, which only an operator can mend. It is returned at once.
	ErrTopology = errors.New("rabbitmq: a queue or exchange is missing or has other properties")
	// ErrPermission says that the server refuses user, password or vhost, or that the user lacks a permission. It is
	// returned at once, while the broker tries again from time to time.
	ErrPermission = errors.New("rabbitmq: the user lacks a permission")
)

const scope = "github.com/sillar-go/sillar/messaging/rabbitmq"

// Config tunes a Broker.
type Config struct {
	// Source names the service in the events it publishes. Required for publishing events that name none.
	Source string
	// Exchange is the topic exchange. Default "microservices".
	Exchange string
	// Name is shown for the connections in RabbitMQ's management. Default Source.
	Name string
	// Logger gets lost connections (warn) and topology that does not fit (error). Default slog.Default().
	Logger *slog.Logger
	// Propagator writes correlation id and trace into the headers. Default both.
	Propagator propagation.TextMapPropagator
	// TracerProvider makes a producer span for each event that is published. Default the global one.
	TracerProvider trace.TracerProvider
	// MeterProvider takes sillar.rabbitmq.published and sillar.rabbitmq.connections_lost. Default the global one.
	MeterProvider metric.MeterProvider
	// TLS is used with amqps://. Default: the system's roots.
	TLS *tls.Config
	// Heartbeat is how often both sides show that they live; a dead connection is noticed after three. Default 10s.
	Heartbeat time.Duration
	// Reconnect is the pause between attempts to connect and to open channels; there is no limit to their number.
	// Default messaging.Exponential(100*time.Millisecond, 15*time.Second).
	Reconnect messaging.Backoff
	// PublishTimeout bounds Publish and PublishBatch beside their contexts, waits for a connection included.
	// Default 30s; negative: only the context does.
	PublishTimeout time.Duration
	// ReportUnknown makes Publish return ErrUnknownOutcome when the connection breaks before the confirm. Default
	// false: the message is published again under the same id, so a consumer may see it twice.
	ReportUnknown bool
	// Passive declares nothing: an operator makes the exchange, the queues of the groups with their arguments and
	// bindings (see the package's topology), and those of the retries. What is missing is an ErrTopology. The user then
	// needs no permission to configure. Default false.
	Passive bool
	// Classic declares classic queues: faster on one node, not replicated. Default false: quorum queues.
	Classic bool
	// DeliveryLimit has a quorum queue dead-letter a message whose consumer was lost so often, with its process, its
	// connection or its channel, before it was settled: such as one that kills its consumers. Up to RabbitMQ 4.2 giving
	// back at a drain counts too. A queue keeps the limit it was made with: another one is an ErrTopology. Default 0: the
	// server's own (RabbitMQ 3: none, 4: 20); negative: none.
	DeliveryLimit int
	// Unpartitioned publishes messages with a key without a second routing key (the header BCC, x-sillar-slot........ and
	// a number), by which groups with partitions divide them: in such a group they all share its first partition. It is
	// for users whose topic permissions exclude that key: RabbitMQ 4 checks all of a message. Default false.
	Unpartitioned bool
}

// Broker is a messaging.Broker. It is safe for concurrent use.
type Broker struct {
	nodes    *nodes
	cfg      Config
	meters   brokermetrics.Meters
	producer driver.Producer
	pub      *publisher
	con      *link

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	streams map[*stream]struct{}
}

var _ messaging.Broker = (*Broker)(nil)

// New returns a Broker, which connects in the background: a server that is down at the moment is no error. Health tells
// whether it is connected. The URL may name several nodes of a cluster,
// amqp://user:password@host1:5672,host2:5672/vhost: each connection is made to one of them at random, and to another
// one when that fails; a node that failed is avoided for 10 seconds up to 5 minutes.
func New(url string, cfg Config) (*Broker, error) {
	nodes, err := parse(url)
	if err != nil {
		return nil, err
	}
	if cfg.Exchange == "" {
		cfg.Exchange = "microservices"
	}
	if cfg.Name == "" {
		cfg.Name = cfg.Source
	}
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	if cfg.Heartbeat <= 0 {
		cfg.Heartbeat = 10 * time.Second
	}
	if cfg.Reconnect == (messaging.Backoff{}) {
		cfg.Reconnect = messaging.Exponential(100*time.Millisecond, 15*time.Second)
	}
	if cfg.PublishTimeout == 0 {
		cfg.PublishTimeout = 30 * time.Second
	}
	m, err := brokermetrics.New(cfg.MeterProvider, scope, "rabbitmq")
	if err != nil {
		return nil, err
	}
	b := &Broker{nodes: nodes, cfg: cfg, meters: m, streams: map[*stream]struct{}{},
		producer: driver.NewProducer(cfg.TracerProvider, cfg.Propagator, scope, "rabbitmq", cfg.Source)}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	b.con = newLink(b, "consume")
	b.pub = &publisher{b: b, link: newLink(b, "publish"), jobs: make(chan *job)}
	b.wg.Go(b.pub.run)
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
	return messaging.Features{Unroutable: true, Delays: true, AnyHash: true, SingleActive: true, Ephemeral: true,
		Partitions: true}
}

// Publish implements messaging.Publisher.
func (b *Broker) Publish(ctx context.Context, topic string, payload any, opts ...messaging.Option) error {
	e, span, err := b.producer.New(ctx, topic, payload, opts...)
	if err == nil {
		err = b.pub.one(ctx, b.cfg.Exchange, e.Type, b.encode(e))
	} else {
		b.meters.Published(ctx, []error{err})
	}
	b.producer.End(span, err)
	return err
}

// PublishBatch implements messaging.Publisher.
func (b *Broker) PublishBatch(ctx context.Context, events []messaging.Envelope) error {
	spans := make([]trace.Span, len(events))
	out := make([]outgoing, len(events))
	fill := b.producer.Fill(ctx)
	errs := b.pub.send(ctx, out, func(i int) error {
		e, span, err := fill(events[i])
		spans[i], out[i] = span, outgoing{b.cfg.Exchange, e.Type, b.encode(e)}
		return err
	})
	for i, span := range spans {
		b.producer.End(span, errs[i])
	}
	return driver.Batch(errs)
}

// healthTimeout bounds Health beside its context.
const healthTimeout = 5 * time.Second

// Health implements messaging.Broker: it returns nil when the connection for publishing is up and not blocked, unless
// the server confirmed none of the messages that were published of late, and when every group that was subscribed
// consumes.
func (b *Broker) Health(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	c, err := b.pub.link.get(ctx)
	if err != nil {
		return err
	}
	if reason, _ := c.blockedBy(); reason != "" {
		return fmt.Errorf("%w: %s", messaging.ErrBlocked, reason)
	}
	if _, why, _ := b.pub.link.state(); why != nil { // connected but unusable
		return fmt.Errorf("%w: %w", messaging.ErrBlocked, why)
	}
	if err := b.pub.record.health(time.Now()); err != nil {
		return err
	}
	for _, s := range b.subscribed() {
		if err := s.health(ctx); err != nil {
			return err
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

// Close implements messaging.Broker. Deliveries that have not been settled go back to their queues.
func (b *Broker) Close() error {
	var errs []error
	for _, s := range b.subscribed() {
		errs = append(errs, s.Close())
	}
	b.cancel()
	b.wg.Wait()
	return errors.Join(errs...)
}

// closed reports whether Close has been called.
func (b *Broker) closed() bool { return b.ctx.Err() != nil }
