package kafka

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/sillar-go/sillar/internal/backoff"
	"github.com/sillar-go/sillar/messaging"
)

// callTimeout is for one call of the cluster's administration, which fails while there is no controller.
const callTimeout = 10 * time.Second

// maxTopic is Kafka's limit for the name of a topic.
const maxTopic = 249

// allowed reports whether Kafka allows a character in the name of a topic.
func allowed(c rune) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-'
}

// token makes a part of a topic's name of a group's name. Different groups have different ones.
func token(group string) string {
	const most = 120
	odd := func(c rune) bool { return !allowed(c) }
	if group != "" && len(group) <= most && !strings.ContainsFunc(group, odd) {
		return group
	}
	sum := sha256.Sum256([]byte(group))
	short := strings.Map(func(c rune) rune {
		if odd(c) {
			return '_'
		}
		return c
	}, group[:min(len(group), most-33)])
	return short + "-" + hex.EncodeToString(sum[:16])
}

// Names of Kafka. An event's topic has one word behind the prefix, those of a group have more.
func (b *Broker) groupID(group string) string    { return b.cfg.Prefix + "." + token(group) }
func (b *Broker) retryTopic(group string) string { return b.cfg.Prefix + "." + token(group) + ".retry" }
func (b *Broker) deadTopic(group string) string  { return b.cfg.Prefix + "." + token(group) + ".dead" }

// eventTopic returns the Kafka topic of a topic, or of a pattern that begins with a word: all that begins with the same
// word shares its partitions.
func (b *Broker) eventTopic(topic string) (string, error) {
	word, _, _ := strings.Cut(topic, ".")
	name := b.cfg.Prefix + "." + word
	if word == "" || strings.ContainsFunc(word, func(c rune) bool { return !allowed(c) }) || len(name) > maxTopic {
		return "", fmt.Errorf("%w: topic %q: its first word is the name of a Kafka topic: want letters, digits, - and _",
			messaging.ErrInvalid, topic)
	}
	return name, nil
}

// isEventTopic reports whether a Kafka topic holds events: what a pattern that begins with * or # may select.
func (b *Broker) isEventTopic(name string) bool {
	word, ok := strings.CutPrefix(name, b.cfg.Prefix+".")
	return ok && word != "" && !strings.Contains(word, ".")
}

// selection is what patterns select of the topics of Kafka.
type selection struct {
	topics []string // by name
	every  bool     // all topics of events, present and to come
}

func (b *Broker) selected(patterns []string) (sel selection, err error) {
	for _, p := range patterns {
		if word, _, _ := strings.Cut(p, "."); word == "*" || word == "#" {
			sel.every = true
			continue
		}
		name, err := b.eventTopic(p)
		if err != nil {
			return sel, err
		}
		if !slices.Contains(sel.topics, name) {
			sel.topics = append(sel.topics, name)
		}
	}
	return sel, nil
}

// kind is what a topic is for, and decides how it is made.
type kind struct {
	partitions int
	configs    map[string]*string
}

// maxDelay bounds the pause before a retry: what waits in a topic is deleted after retryKeep.
const (
	maxDelay  = 28 * 24 * time.Hour
	retryKeep = 35 * 24 * time.Hour
)

func (b *Broker) kind(topic string) kind {
	k := kind{b.cfg.Partitions, map[string]*string{"cleanup.policy": kadm.StringPtr("delete")}}
	retention := b.cfg.Keep
	switch {
	case b.isEventTopic(topic):
	case topic == b.registry.topic:
		k.partitions, k.configs["cleanup.policy"] = 1, kadm.StringPtr("compact")
		retention = 0
	case strings.HasSuffix(topic, ".dead"):
		k.partitions, retention = 1, -1 // oldest first
	default:
		retention = retryKeep
	}
	switch {
	case retention < 0:
		k.configs["retention.ms"] = kadm.StringPtr("-1")
	case retention > 0:
		k.configs["retention.ms"] = kadm.StringPtr(strconv.FormatInt(max(retention.Milliseconds(), 1), 10))
	}
	if b.cfg.Replicas >= 3 {
		k.configs["min.insync.replicas"] = kadm.StringPtr("2")
	}
	return k
}

// ensure makes topics that are missing. With Config.Passive they are an ErrTopology.
func (b *Broker) ensure(ctx context.Context, topics ...string) error {
	missing := b.unknown(topics)
	if len(missing) == 0 {
		return nil
	}
	select {
	case b.declaring <- struct{}{}:
		defer func() { <-b.declaring }()
	case <-ctx.Done():
		return fmt.Errorf("%w: its topics are being made: %w", messaging.ErrBlocked, ctx.Err())
	}
	return b.call(ctx, func(ctx context.Context) error {
		missing := b.unknown(topics)
		if len(missing) == 0 {
			return nil
		}
		have, err := b.adm.ListTopics(ctx, missing...)
		if err != nil {
			return err
		}
		for _, name := range missing {
			if err := b.ensureOne(ctx, name, have[name]); err != nil {
				return fmt.Errorf("topic %s: %w", name, err)
			}
		}
		return nil
	})
}

func (b *Broker) ensureOne(ctx context.Context, name string, have kadm.TopicDetail) error {
	switch err := have.Err; {
	case err == nil && len(have.Partitions) > 0:
		b.setKnown(name, true)
		return nil
	case err != nil && !errors.Is(err, kerr.UnknownTopicOrPartition):
		return permission(err)
	case b.cfg.Passive:
		return fmt.Errorf("%w: it does not exist", ErrTopology)
	}
	k := b.kind(name)
	made, err := b.adm.CreateTopic(ctx, int32(k.partitions), int16(b.cfg.Replicas), k.configs, name)
	if err == nil {
		err = made.Err
	}
	switch {
	case errors.Is(err, kerr.TopicAlreadyExists): // another process was faster
		return kerr.LeaderNotAvailable // once more
	case errors.Is(err, kerr.InvalidReplicationFactor), errors.Is(err, kerr.InvalidPartitions),
		errors.Is(err, kerr.InvalidConfig), errors.Is(err, kerr.PolicyViolation), errors.Is(err, kerr.InvalidTopicException):
		return fmt.Errorf("%w: %w", ErrTopology, err)
	case err != nil:
		return permission(err)
	}
	for _, s := range b.subscribed() {
		signal(s.look)
	}
	b.setKnown(name, true)
	return nil
}

// unknown returns the topics of which it is not known that they exist.
func (b *Broker) unknown(topics []string) (missing []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range topics {
		if _, ok := b.known[t]; !ok && !slices.Contains(missing, t) {
			missing = append(missing, t)
		}
	}
	return missing
}

func (b *Broker) setKnown(topic string, known bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if known {
		b.known[topic] = struct{}{}
	} else {
		delete(b.known, topic)
	}
}

// firstPause is the pause before a call is repeated the first time: a topic that was made has leaders within
// milliseconds.
const firstPause = 5 * time.Millisecond

// call repeats a call of the administration until it succeeds, cannot succeed, or ctx ends.
func (b *Broker) call(ctx context.Context, f func(ctx context.Context) error) error {
	for attempt := 0; ; attempt++ {
		if b.closed() || b.leaving() {
			return messaging.ErrClosed
		}
		one, cancel := context.WithTimeout(ctx, callTimeout)
		err := f(one)
		cancel()
		if err == nil || errors.Is(err, ErrTopology) || errors.Is(err, ErrPermission) ||
			errors.Is(err, messaging.ErrInvalid) {
			return err
		}
		if err = permission(b.reason(err)); errors.Is(err, ErrPermission) {
			return err
		}
		pause := firstPause
		if attempt > 0 {
			pause = b.cfg.Reconnect.Delay(attempt)
		}
		if ended := backoff.Sleep(ctx, pause); ended != nil {
			return fmt.Errorf("%w: %w: %w", messaging.ErrBlocked, err, ended)
		}
	}
}
