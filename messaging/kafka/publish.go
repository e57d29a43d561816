package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/trace"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/driver"
)

// producerOptions: confirmed by all replicas in sync, each record stored once however often it is sent, in order by
// partition, and partitions chosen as Java's clients choose them: by murmur2 of the key.
func (b *Broker) producerOptions() []kgo.Opt {
	return []kgo.Opt{
		kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProducerLinger(0),
		kgo.RecordPartitioner(kgo.UniformBytesPartitioner(64<<10, true, true, nil)),
		kgo.ProducerBatchMaxBytes(maxMessage),
	}
}

// Publish implements messaging.Publisher.
func (b *Broker) Publish(ctx context.Context, topic string, payload any, opts ...messaging.Option) error {
	var span trace.Span
	errs := make([]error, 1)
	b.produce(ctx, make([]*kgo.Record, 1), errs, func(int) (*kgo.Record, error) {
		e, s, err := b.producer.New(ctx, topic, payload, opts...)
		if span = s; err != nil {
			return nil, err
		}
		return b.record(e)
	})
	b.meters.Published(ctx, errs)
	b.producer.End(span, errs[0])
	return errs[0]
}

// PublishBatch implements messaging.Publisher.
func (b *Broker) PublishBatch(ctx context.Context, events []messaging.Envelope) error {
	spans, errs := make([]trace.Span, len(events)), make([]error, len(events))
	fill := b.producer.Fill(ctx)
	b.produce(ctx, make([]*kgo.Record, len(events)), errs, func(i int) (*kgo.Record, error) {
		e, span, err := fill(events[i])
		if spans[i] = span; err != nil {
			return nil, err
		}
		return b.record(e)
	})
	b.meters.Published(ctx, errs)
	for i, span := range spans {
		b.producer.End(span, errs[i])
	}
	return driver.Batch(errs)
}

// record makes the record of an event.
func (b *Broker) record(e messaging.Envelope) (*kgo.Record, error) {
	topic, err := b.eventTopic(e.Type)
	if err != nil {
		return nil, err
	}
	r := encode(topic, e)
	if n := size(r); n > maxMessage-headroom {
		return nil, fmt.Errorf("%w: %d bytes with headers: want at most %d", messaging.ErrInvalid, n, maxMessage-headroom)
	}
	return r, nil
}

const (
	// maxMessage is what Kafka takes unless it is configured (max.message.bytes), less a little.
	maxMessage = 1 << 20
	// headroom is what a copy for a retry or the dead letters may need more than the event.
	headroom = 8 << 10
)

// size is what a record takes on its way, and somewhat more.
func size(r *kgo.Record) int {
	const each = 12 // lengths of a header
	n := 128 + len(r.Key) + len(r.Value)
	for _, h := range r.Headers {
		n += each + len(h.Key) + len(h.Value)
	}
	return n
}

// produce publishes records, in order, and waits for the confirms. They are made by prepare, where that is given, block
// by block, while those before them are under way.
func (b *Broker) produce(ctx context.Context, records []*kgo.Record, errs []error,
	prepare func(i int) (*kgo.Record, error)) {
	if b.cfg.PublishTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, b.cfg.PublishTimeout)
		defer cancel()
	}
	for b.try(ctx, records, errs, prepare) {
		prepare = nil // the records are made
	}
}

// block is how many records of a batch are made at a time: the client sends what it has, and few large requests are
// faster than many small ones.
const block = 250

// try publishes the records that are not nil, and reports whether some of them are to be published again: their topic
// has been deleted, so that nothing was stored.
func (b *Broker) try(ctx context.Context, records []*kgo.Record, errs []error,
	prepare func(i int) (*kgo.Record, error)) (again bool) {
	if len(records) == 0 {
		return false
	}
	s := &sending{done: make(chan struct{}), errs: slices.Repeat([]error{errUnderWay}, len(records)), left: len(records)}
	last, refused := "", error(nil)
	for i := range records {
		if prepare != nil && i%block == 0 {
			for j := i; j < min(i+block, len(records)); j++ {
				records[j], errs[j] = prepare(j)
			}
		}
		r := records[i]
		if r != nil && r.Topic != last {
			last, refused = r.Topic, b.publishable(ctx, r.Topic)
		}
		if r != nil && refused != nil {
			records[i], errs[i] = nil, refused
		}
		if records[i] == nil {
			s.end(i, nil)
			continue
		}
		b.cl.Produce(ctx, r, s.promise(i))
	}
	b.wait(ctx, s, records, errs)
	for i, r := range records {
		switch {
		case r == nil:
		case deleted(errs[i]) && ctx.Err() == nil && !b.cfg.Passive:
			b.setKnown(r.Topic, false)
			b.cl.PurgeTopicsFromProducing(r.Topic) // what the client knows of it
			records[i] = &kgo.Record{Topic: r.Topic, Key: r.Key, Headers: r.Headers, Value: r.Value}
			again = true
		default:
			errs[i] = outcome(errs[i])
			records[i] = nil
		}
	}
	return again
}

// deleted reports whether a record was refused because its topic is not there.
func deleted(err error) bool {
	return errors.Is(err, kerr.UnknownTopicOrPartition) || errors.Is(err, kerr.UnknownTopicID)
}

// publishable makes the topic of an event where it is missing.
func (b *Broker) publishable(ctx context.Context, topic string) error {
	if b.closed() || b.leaving() && b.isEventTopic(topic) {
		return messaging.ErrClosed
	}
	return b.ensure(ctx, topic)
}

// sending are the records of one call that are under way.
type sending struct {
	mu   sync.Mutex
	errs []error // nil when the call has returned
	left int
	done chan struct{}
}

func (s *sending) promise(i int) func(*kgo.Record, error) {
	return func(_ *kgo.Record, err error) { s.end(i, err) }
}

// end notes the outcome of a record.
func (s *sending) end(i int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.errs != nil {
		s.errs[i] = err
	}
	if s.left--; s.left == 0 {
		close(s.done)
	}
}

// grace is for what the client has to say of records that ctx has cut short: those that it has not sent fail at once.
const grace = 200 * time.Millisecond

// errUnderWay is the outcome of a record that was sent and not answered when the call ended.
var errUnderWay = errors.New("kafka: no answer in time")

// wait waits until each record has an outcome or, a little later than ctx, none can be waited for.
func (b *Broker) wait(ctx context.Context, s *sending, records []*kgo.Record, errs []error) {
	select {
	case <-s.done:
	case <-ctx.Done():
		t := time.NewTimer(grace)
		defer t.Stop()
		select {
		case <-s.done:
		case <-t.C:
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, r := range records {
		if r == nil {
			continue
		}
		errs[i] = s.errs[i]
		if errors.Is(errs[i], errUnderWay) {
			errs[i] = fmt.Errorf("%w: %w", errUnderWay, ctx.Err())
		} else if errs[i] != nil && ctx.Err() != nil {
			errs[i] = b.reason(errs[i])
		}
	}
	s.errs = nil
}

// notStored are the cluster's answers by which it has not stored a record.
var notStored = []error{
	kerr.TopicAuthorizationFailed, kerr.ClusterAuthorizationFailed, kerr.InvalidTimestamp, kerr.InvalidTopicException,
	kerr.InvalidRequiredAcks, kerr.NotEnoughReplicas, kerr.PolicyViolation, kerr.UnsupportedForMessageFormat,
	kerr.UnsupportedCompressionType,
}

// outcome says what an error of publishing means. What does not prove that the record was not stored leaves it unknown.
func outcome(err error) error {
	is := func(one error) bool { return errors.Is(err, one) }
	switch {
	case err == nil:
		return nil
	case is(errUnderWay):
		return fmt.Errorf("%w: %w", messaging.ErrUnknownOutcome, err)
	case errors.Is(err, kgo.ErrClientClosed):
		return fmt.Errorf("%w: %w", messaging.ErrClosed, err)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, kgo.ErrRecordTimeout):
		return fmt.Errorf("%w: %w", messaging.ErrBlocked, permission(err)) // it was not sent
	case errors.Is(err, kerr.MessageTooLarge), errors.Is(err, kerr.RecordListTooLarge), errors.Is(err, kerr.InvalidRecord):
		return fmt.Errorf("%w: %w", messaging.ErrInvalid, err)
	case deleted(err):
		return fmt.Errorf("%w: %w", ErrTopology, err)
	case slices.ContainsFunc(notStored, is):
		return fmt.Errorf("%w: %w", messaging.ErrNacked, permission(err))
	}
	return fmt.Errorf("%w: %w", messaging.ErrUnknownOutcome, permission(err))
}

// move publishes one record to a topic of this package.
func (b *Broker) move(ctx context.Context, r *kgo.Record) error {
	errs := []error{nil}
	b.produce(ctx, []*kgo.Record{r}, errs, nil)
	return errs[0]
}
