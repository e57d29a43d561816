package kafka

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
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
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
	ErrURL = errors.New("kafka: unusable URL: want kafka:// or kafkas://, user, password, and hosts with ports, " +
		"separated by commas")
	// ErrTopology says that a Kafka topic is missing and cannot be made or, with Config.Passive, must not be.
	ErrTopology = errors.New("kafka: a topic is missing or cannot be made")
	// ErrPermission says that the cluster refuses user and password, or that the user lacks a permission (ACL).
	ErrPermission = errors.New("kafka: the user lacks a permission")
)

// Values of Config.Mechanism.
const (
	ScramSHA512 = "SCRAM-SHA-512"
	ScramSHA256 = "SCRAM-SHA-256"
	Plain       = "PLAIN"
)

const scope = "github.com/sillar-go/sillar/messaging/kafka"

// Config tunes a Broker.
type Config struct {
	// Source names the service in the events it publishes. Required for publishing events that name none.
	Source string
	// Prefix begins the names of all topics and consumer groups, so that permissions can be given by prefix.
	// Default "microservices".
	Prefix string
	// Partitions is how many partitions a topic that is made gets. It bounds the processes of a group that work at the
	// same time. A topic that exists keeps its number. Default 6.
	Partitions int
	// Replicas is on how many brokers a topic that is made is kept; with 3 or more it confirms what two of them have
	// (min.insync.replicas). Default: the cluster's default.replication.factor.
	Replicas int
	// Keep is for how long the events of a topic that is made are kept, handled or not (retention.ms). A group that is
	// behind by more loses what is older. Default: the cluster's log.retention; negative: without limit in time.
	Keep time.Duration
	// Passive makes no topics: an operator makes them (see the package's topology), and those that are missing are an
	// ErrTopology. Default false.
	Passive bool
	// Name is the client id that the cluster shows. Default Source.
	Name string
	// User and Password are for SASL. Default: those of the URL, and no SASL without either.
	User, Password string
	// Mechanism is the SASL mechanism: ScramSHA512, ScramSHA256 or Plain, which shows the password to the broker and
	// wants TLS. Default ScramSHA512.
	Mechanism string
	// TLS is used with kafkas:// and, when it is set, with kafka:// too. Default: the system's roots.
	TLS *tls.Config
	// SessionTimeout is how long after its process died the partitions of a consumer go to another one. Shorter is
	// faster, and gives partitions away during shorter pauses of a process; the cluster bounds it
	// (group.min.session.timeout.ms, 6s). Default 45s, as Java's clients.
	SessionTimeout time.Duration
	// RevokeWait bounds the wait for running handlers before a partition moves to another process. A message whose
	// handler runs longer is handled again there, possibly at the same time. After processes were killed while they joined
	// their group, it may be without consumers for twice the sum of this, 7s and SessionTimeout/15. Default 10s; negative:
	// no wait.
	RevokeWait time.Duration
	// CommitInterval is how often what was settled is committed. A process that is killed has handled messages again
	// that were settled since the last commit. Shorter means more requests. Default 100ms.
	CommitInterval time.Duration
	// Refresh is how often a subscription by a pattern that begins with * or # looks for new topics. It lists all
	// topics of the cluster. Default 10s.
	Refresh time.Duration
	// Logger gets lost connections (warn) and errors of consuming (warn). Default slog.Default().
	Logger *slog.Logger
	// Propagator writes correlation id and trace into the headers. Default both.
	Propagator propagation.TextMapPropagator
	// TracerProvider makes a producer span for each event that is published. Default the global one.
	TracerProvider trace.TracerProvider
	// MeterProvider takes sillar.kafka.published, sillar.kafka.connections_lost and sillar.kafka.lag. Default the
	// global one.
	MeterProvider metric.MeterProvider
	// Reconnect is the pause between attempts to connect, and to repeat what failed; there is no limit to their number.
	// Default messaging.Exponential(100*time.Millisecond, 5*time.Second).
	Reconnect messaging.Backoff
	// PublishTimeout bounds Publish and PublishBatch beside their contexts. Default 30s; negative: only the context
	// does.
	PublishTimeout time.Duration
}

// Broker is a messaging.Broker. It is safe for concurrent use.
type Broker struct {
	cfg      Config
	opts     []kgo.Opt // of every client
	meters   brokermetrics.Meters
	lag      metric.Registration
	producer driver.Producer
	registry *registry
	cl       *kgo.Client
	adm      *kadm.Client

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup
	end    sync.Once
	ending atomic.Bool

	redriving chan struct{} // holds one token: who has it moves dead letters
	declaring chan struct{} // holds one token: who has it makes topics

	mu      sync.Mutex
	streams map[*stream]struct{}
	known   map[string]struct{} // topics that exist, as far as is known
	why     error               // why the last attempt to connect failed
}

var (
	_ messaging.Broker   = (*Broker)(nil)
	_ messaging.Featured = (*Broker)(nil)
)

var prefixName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,100}$`)

// New returns a Broker, which connects when it is used: a cluster that is down at the moment is no error. Health tells
// whether it can be reached. The URL may name several brokers, kafka://host1:9092,host2:9092; further ones of their
// cluster are learnt from them.
func New(url string, cfg Config) (*Broker, error) {
	t, err := parse(url)
	if err != nil {
		return nil, err
	}
	cfg.Prefix = cmp.Or(cfg.Prefix, "microservices")
	if !prefixName.MatchString(cfg.Prefix) {
		return nil, fmt.Errorf("kafka: Config.Prefix %q: want 1 to 100 letters, digits, - and _", cfg.Prefix)
	}
	cfg.Partitions = cmp.Or(max(cfg.Partitions, 0), 6)
	cfg.Replicas = cmp.Or(max(cfg.Replicas, 0), -1)
	cfg.Name = cmp.Or(cfg.Name, cfg.Source, "sillar")
	cfg.SessionTimeout = cmp.Or(max(cfg.SessionTimeout, 0), 45*time.Second)
	cfg.RevokeWait = cmp.Or(cfg.RevokeWait, 10*time.Second)
	cfg.CommitInterval = cmp.Or(max(cfg.CommitInterval, 0), 100*time.Millisecond)
	cfg.Refresh = cmp.Or(max(cfg.Refresh, 0), 10*time.Second)
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	cfg.Reconnect = cmp.Or(cfg.Reconnect, messaging.Exponential(100*time.Millisecond, 5*time.Second))
	cfg.PublishTimeout = cmp.Or(cfg.PublishTimeout, 30*time.Second)
	b := &Broker{cfg: cfg, streams: map[*stream]struct{}{}, known: map[string]struct{}{},
		redriving: make(chan struct{}, 1), declaring: make(chan struct{}, 1),
		producer: driver.NewProducer(cfg.TracerProvider, cfg.Propagator, scope, "kafka", cfg.Source)}
	b.registry = newRegistry(b)
	b.ctx, b.cancel = context.WithCancel(context.Background())
	if b.meters, err = brokermetrics.New(cfg.MeterProvider, scope, "kafka"); err == nil {
		if b.lag, err = b.measureLag(cfg.MeterProvider); err == nil {
			b.opts, err = b.connectionOptions(t)
		}
	}
	if err == nil {
		b.cl, err = kgo.NewClient(append(b.producerOptions(), b.opts...)...)
	}
	if err != nil {
		b.cancel()
		return nil, fmt.Errorf("kafka: %w", err)
	}
	b.adm = kadm.NewClient(b.cl)
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
	return messaging.Features{Delays: true, AnyHash: true, Replay: true, OrderByKey: true,
		Partitions: true}
}

// healthTimeout bounds Health beside its context.
const healthTimeout = 5 * time.Second

// Health implements messaging.Broker: it returns nil when the cluster answers, every topic that this broker has
// published to has leaders, and every stream has joined its group and could fetch.
func (b *Broker) Health(ctx context.Context) error {
	if b.closed() {
		return messaging.ErrClosed
	}
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	b.mu.Lock()
	topics := slices.Collect(maps.Keys(b.known))
	b.mu.Unlock()
	if len(topics) == 0 {
		if err := b.cl.Ping(ctx); err != nil {
			return fmt.Errorf("%w: %w", messaging.ErrBlocked, b.reason(err))
		}
	} else if err := b.led(ctx, topics); err != nil {
		return fmt.Errorf("%w: %w", messaging.ErrBlocked, b.reason(err))
	}
	for _, s := range b.subscribed() {
		if err := s.health(); err != nil {
			return fmt.Errorf("%w: group %s does not consume: %w", messaging.ErrBlocked, s.sub.Group, err)
		}
	}
	return nil
}

// led returns an error when a partition has no leader: nothing can be published to it.
func (b *Broker) led(ctx context.Context, topics []string) error {
	all, err := b.adm.ListTopics(ctx, topics...)
	if err != nil {
		return err
	}
	for _, t := range all {
		if t.Err != nil && !errors.Is(t.Err, kerr.UnknownTopicOrPartition) { // deleted ones are made again
			return fmt.Errorf("topic %s: %w", t.Topic, permission(t.Err))
		}
		for _, p := range t.Partitions {
			if p.Leader < 0 {
				return fmt.Errorf("topic %s, partition %d: it has no leader", t.Topic, p.Partition)
			}
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
	b.ending.Store(true)
	var all sync.WaitGroup
	for _, s := range b.subscribed() {
		all.Go(func() { _ = s.Close() })
	}
	all.Wait()
	b.end.Do(func() {
		b.cancel()
		b.cl.Close()
		if b.lag != nil {
			_ = b.lag.Unregister()
		}
	})
	b.wg.Wait()
	return nil
}

// closed reports whether Close has done its work, leaving whether it has begun.
func (b *Broker) closed() bool  { return b.ctx.Err() != nil }
func (b *Broker) leaving() bool { return b.ending.Load() }

// permission makes an ErrPermission of an error that says so.
func permission(err error) error {
	for _, denied := range []error{kerr.TopicAuthorizationFailed, kerr.GroupAuthorizationFailed,
		kerr.ClusterAuthorizationFailed, kerr.SaslAuthenticationFailed} {
		if errors.Is(err, denied) {
			return fmt.Errorf("%w: %w", ErrPermission, err)
		}
	}
	return err
}
