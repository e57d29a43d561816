package driver

import (
	"errors"
	"fmt"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/internal/topics"
)

// Check reports what keeps a subscription from being made on a broker with these features: an ErrInvalid for an empty,
// overlong or reserved name of a group (g.dead, g.retry.5s and amq. are names of a group's other queues, or AMQP's) and
// for malformed patterns and contradictory settings, an ErrUnsupported for more than the features have.
func Check(s messaging.Subscription, f messaging.Features) error {
	if err := topics.ValidGroup(s.Group); err != nil {
		return fmt.Errorf("%w: %w", messaging.ErrInvalid, err)
	}
	for _, p := range s.Patterns {
		if err := ValidPattern(p); err != nil {
			return err
		}
	}
	switch {
	case s.Partitions < 0 || s.Partitions > maxPartitions:
		return fmt.Errorf("%w: group %s: %d partitions: want 0 to %d", messaging.ErrInvalid, s.Group, s.Partitions,
			maxPartitions)
	case s.Partitions > 0 && (s.SingleActive || s.Ephemeral):
		return fmt.Errorf("%w: group %s: Partitions exclude SingleActive and Ephemeral", messaging.ErrInvalid, s.Group)
	case s.Partitions > 0 && !f.Partitions:
		return fmt.Errorf("%w: group %s: partitions", messaging.ErrUnsupported, s.Group)
	case s.Start != (messaging.Start{}) && !f.Replay:
		return fmt.Errorf("%w: group %s: a start position: it keeps no messages for groups to come",
			messaging.ErrUnsupported, s.Group)
	case s.SingleActive && !f.SingleActive:
		return fmt.Errorf("%w: group %s: one active consumer at a time", messaging.ErrUnsupported, s.Group)
	case s.Ephemeral && !f.Ephemeral:
		return fmt.Errorf("%w: group %s: a queue for each stream", messaging.ErrUnsupported, s.Group)
	}
	return nil
}

// maxPartitions bounds Subscription.Partitions: each costs a queue, and a channel in every process.
const maxPartitions = 64

// Match reports whether a topic matches an AMQP topic pattern: * stands for one word and # for any number of words.
func Match(pattern, topic string) bool { return topics.Match(pattern, topic) }

// ValidPattern reports what is wrong with a pattern, as an ErrInvalid.
func ValidPattern(pattern string) error {
	if err := topics.Valid(pattern); err != nil {
		return fmt.Errorf("%w: %w", messaging.ErrInvalid, err)
	}
	return nil
}

// Again returns what became of an event that was sent again, of what became of it before and what the last attempt met.
// An unknown outcome stays unknown unless the event was confirmed: a refusal is of the last attempt only.
func Again(before, last error) error {
	switch {
	case last == nil, !errors.Is(before, messaging.ErrUnknownOutcome), errors.Is(last, messaging.ErrUnknownOutcome):
		return last
	case errors.Is(last, messaging.ErrNacked), errors.Is(last, messaging.ErrInvalid): // which say that it was not stored
		return fmt.Errorf("%w: sent again, it was refused: %s", messaging.ErrUnknownOutcome, last.Error())
	}
	return fmt.Errorf("%w: %w", messaging.ErrUnknownOutcome, last)
}

// Batch returns nil when no entry of errs is an error, else a *messaging.BatchError.
func Batch(errs []error) error {
	for _, err := range errs {
		if err != nil {
			return &messaging.BatchError{Errors: errs}
		}
	}
	return nil
}
