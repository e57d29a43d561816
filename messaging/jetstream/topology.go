package jetstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/sillar-go/sillar/internal/backoff"
	"github.com/sillar-go/sillar/messaging"
)

// ready waits for a connection and for the streams.
func (b *Broker) ready(ctx context.Context) (jetstream.JetStream, error) {
	js, err := b.link.get(ctx)
	if err != nil || b.isDeclared() {
		return js, err
	}
	select {
	case b.declaring <- struct{}{}:
		defer func() { <-b.declaring }()
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: its streams are being made: %w", messaging.ErrBlocked, ctx.Err())
	}
	if b.isDeclared() {
		return js, nil
	}
	for _, want := range b.streamConfigs() {
		if err := b.call(ctx, func(ctx context.Context) error { return b.declareStream(ctx, js, want) }); err != nil {
			return nil, fmt.Errorf("jetstream: stream %s: %w", want.Name, err)
		}
	}
	b.setDeclared(true)
	return js, nil
}

func (b *Broker) isDeclared() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.declared
}

// setDeclared notes whether the streams are there, as far as is known.
func (b *Broker) setDeclared(declared bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.declared = declared
}

func (b *Broker) streamConfigs() []jetstream.StreamConfig {
	events := jetstream.StreamConfig{Name: b.cfg.Stream, Subjects: []string{b.cfg.Stream + ".>",
		b.cfg.Stream + "_retry.>"},
		Retention: jetstream.InterestPolicy, Storage: jetstream.FileStorage, Replicas: b.cfg.Replicas,
		Duplicates: b.cfg.Duplicates}
	if b.cfg.Keep > 0 {
		events.Retention, events.MaxAge = jetstream.LimitsPolicy, b.cfg.Keep
	}
	return []jetstream.StreamConfig{events, {Name: b.deadStream(), Subjects: []string{b.deadStream() + ".>"},
		Storage: jetstream.FileStorage, Replicas: b.cfg.Replicas, Duplicates: b.cfg.Duplicates}}
}

// declareStream makes a stream that is missing, and checks one that is there.
func (b *Broker) declareStream(ctx context.Context, js jetstream.JetStream, want jetstream.StreamConfig) error {
	s, err := js.Stream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) && !b.cfg.Passive {
		s, err = js.CreateStream(ctx, want)
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another process was faster
			s, err = js.Stream(ctx, want.Name)
		}
	}
	if err != nil {
		return err
	}
	have := s.CachedInfo().Config
	for _, subject := range want.Subjects {
		if !slices.ContainsFunc(have.Subjects, func(h string) bool { return contains(h, subject) }) {
			return fmt.Errorf("%w: it does not take the subject %s", ErrTopology, subject)
		}
	}
	if have.Retention != want.Retention {
		return fmt.Errorf("%w: its retention is %v, want %v (Config.Keep)", ErrTopology, have.Retention, want.Retention)
	}
	return nil
}

// call repeats a call of JetStream's API until it succeeds, cannot succeed, or ctx ends: while a cluster elects a
// leader, there is no answer or a passing error.
func (b *Broker) call(ctx context.Context, f func(ctx context.Context) error) error {
	for attempt := 1; ; attempt++ {
		_ = b.link.permission(apiPrefix) // of earlier calls
		one, cancel := context.WithTimeout(ctx, callTimeout)
		err := f(one)
		cancel()
		if err == nil {
			return nil
		}
		if denied := b.link.permission(apiPrefix); denied != nil && errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("%w: %w", ErrPermission, denied)
		}
		if err = permanent(err); errors.Is(err, ErrTopology) || errors.Is(err, messaging.ErrInvalid) {
			return err
		}
		if b.closed() {
			return messaging.ErrClosed
		}
		if backoff.Sleep(ctx, b.cfg.Reconnect.Delay(attempt)) != nil {
			return fmt.Errorf("%w: %w: %w", messaging.ErrBlocked, err, ctx.Err())
		}
	}
}

// noPeers is the code of the server's error that a cluster has too few servers at present.
const noPeers = 10005

// permanent makes an ErrTopology of an error that only an operator can mend.
func permanent(err error) error {
	var e *jetstream.APIError
	if !errors.As(err, &e) || e.ErrorCode == noPeers {
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			return fmt.Errorf("%w: %w", ErrTopology, err)
		}
		return err
	}
	const replicasNotSupported, invalidReplicas = 10074, 10052
	switch {
	case e.Code == 400, e.Code == 404, e.ErrorCode == replicasNotSupported, e.ErrorCode == invalidReplicas &&
		e.Code != 503:
		return fmt.Errorf("%w: %w", ErrTopology, err)
	}
	return err
}

// declareGroup makes a group's consumer, or adds to its patterns. Those that it has stay, as they may be another
// process's. It returns the consumer's AckWait.
func (b *Broker) declareGroup(ctx context.Context, sub messaging.Subscription) (ackWait time.Duration, err error) {
	want, err := b.filters(sub.Group, sub.Patterns, nil)
	if err != nil {
		return 0, err
	}
	err = b.call(ctx, func(ctx context.Context) error {
		js, err := b.ready(ctx)
		if err != nil {
			return err
		}
		name := token(sub.Group)
		c, err := js.Consumer(ctx, b.cfg.Stream, name)
		switch {
		case errors.Is(err, jetstream.ErrConsumerNotFound):
			ackWait = b.cfg.AckWait
			_, err = js.CreateConsumer(ctx, b.cfg.Stream, b.consumerConfig(name, sub.Start, want))
			if errors.Is(err, jetstream.ErrConsumerExists) { // another process was faster: add to its patterns
				return nats.ErrTimeout
			}
			return err
		case errors.Is(err, jetstream.ErrStreamNotFound):
			b.setDeclared(false)
			return nats.ErrTimeout // once more
		case err != nil:
			return err
		}
		cfg := c.CachedInfo().Config
		ackWait = cfg.AckWait
		have := cfg.FilterSubjects
		if cfg.FilterSubject != "" {
			have = append(have, cfg.FilterSubject)
		}
		all, err := b.filters(sub.Group, sub.Patterns, have)
		if err != nil || slices.Equal(all, slices.Sorted(slices.Values(have))) {
			return err
		}
		cfg.FilterSubject, cfg.FilterSubjects = "", all
		_, err = js.UpdateConsumer(ctx, b.cfg.Stream, cfg)
		return err
	})
	return ackWait, err
}

func (b *Broker) consumerConfig(name string, start messaging.Start, filters []string) jetstream.ConsumerConfig {
	// Prefetch is bounded by what is pulled: retries that wait are unsettled for the server, and would use up
	// MaxAckPending.
	cfg := jetstream.ConsumerConfig{Durable: name, AckPolicy: jetstream.AckExplicitPolicy, AckWait: b.cfg.AckWait,
		MaxDeliver:    -1,
		MaxAckPending: -1, FilterSubjects: filters, DeliverPolicy: jetstream.DeliverNewPolicy}
	if t := start.Time(); !t.IsZero() {
		cfg.DeliverPolicy, cfg.OptStartTime = jetstream.DeliverByStartTimePolicy, &t
	} else if start.Earliest() {
		cfg.DeliverPolicy = jetstream.DeliverAllPolicy
	}
	return cfg
}

// refresh is how often a consumer is checked: no event says that it was deleted or lost a pattern.
const refresh = 30 * time.Second
