package kafka

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/driver"
)

// DeadLetters implements messaging.Broker.
func (b *Broker) DeadLetters(ctx context.Context, group string, limit int) ([]messaging.DeadLetter, error) {
	records, err := b.oldestDead(ctx, group, limit)
	if err != nil {
		return nil, fmt.Errorf("kafka: dead letters of %s: %w", group, err)
	}
	dead := make([]messaging.DeadLetter, len(records))
	for i, r := range records {
		e, m := b.decode(r)
		dead[i] = messaging.DeadLetter{Envelope: e, Reason: m.reason, Attempts: m.attempts, Origin: m.origin}
	}
	return dead, nil
}

// redriveBatch is how many dead letters are moved before they are deleted.
const redriveBatch = 100

// Redrive implements messaging.Broker. Letters are deleted when their copies are confirmed; when it fails halfway the
// number of those that were moved is returned with the error. Two processes that redrive one group at the same time may
// each move the same letters.
func (b *Broker) Redrive(ctx context.Context, group string, limit int) (moved int, err error) {
	select {
	case b.redriving <- struct{}{}:
		defer func() { <-b.redriving }()
	case <-ctx.Done():
		return 0, fmt.Errorf("kafka: redrive %s: %w", group, ctx.Err())
	}
	for moved < limit {
		n, err := b.redriveSome(ctx, group, min(limit-moved, redriveBatch))
		if moved += n; err != nil {
			return moved, fmt.Errorf("kafka: redrive %s: %w", group, err)
		}
		if n == 0 {
			break
		}
	}
	return moved, nil
}

func (b *Broker) redriveSome(ctx context.Context, group string, limit int) (moved int, err error) {
	letters, err := b.oldestDead(ctx, group, limit)
	if err != nil || len(letters) == 0 {
		return 0, err
	}
	copies, errs := make([]*kgo.Record, len(letters)), make([]error, len(letters))
	for i, r := range letters {
		e, _ := b.decode(r)
		copies[i] = encode(b.retryTopic(group), e)
	}
	b.produce(ctx, copies, errs, nil)
	for moved < len(letters) && errs[moved] == nil {
		moved++
	}
	if moved > 0 {
		if err := b.deleteDead(ctx, group, letters[moved-1].Offset+1); err != nil {
			return 0, err
		}
	}
	return moved, driver.Batch(errs)
}

func (b *Broker) deleteDead(ctx context.Context, group string, before int64) error {
	offsets := kadm.Offsets{}
	offsets.AddOffset(b.deadTopic(group), 0, before, -1)
	return b.call(ctx, func(ctx context.Context) error {
		done, err := b.adm.DeleteRecords(ctx, offsets)
		if err == nil {
			err = done.Error()
		}
		return err
	})
}

// oldestDead returns up to limit dead letters, oldest first. Those that come meanwhile are not among them.
func (b *Broker) oldestDead(ctx context.Context, group string, limit int) (records []*kgo.Record, err error) {
	if limit <= 0 {
		return nil, nil
	}
	topic := b.deadTopic(group)
	var first, end int64
	err = b.call(ctx, func(ctx context.Context) error {
		all, err := b.adm.ListTopics(ctx, topic)
		if err != nil || all[topic].Err != nil || len(all[topic].Partitions) == 0 { // the group does not exist
			return err
		}
		starts, err := listed(b.adm.ListStartOffsets(ctx, topic))
		if err != nil {
			return err
		}
		ends, err := listed(b.adm.ListEndOffsets(ctx, topic))
		if err != nil {
			return err
		}
		from, _ := starts.Lookup(topic, 0)
		to, _ := ends.Lookup(topic, 0)
		first, end = from.Offset, to.Offset
		return nil
	})
	if err != nil || first >= end {
		return nil, err
	}
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().At(first)}}),
		kgo.KeepControlRecords(), // for the last offset to be seen
	}, b.opts...)...)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	for next := first; next < end && len(records) < limit; {
		fetches := cl.PollRecords(ctx, min(limit-len(records), redriveBatch))
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%w: %w", messaging.ErrBlocked, ctx.Err())
		}
		if err := fetches.Err(); err != nil {
			return nil, permission(err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			next = r.Offset + 1
			if !r.Attrs.IsControl() && r.Offset < end {
				records = append(records, r)
			}
		})
	}
	return records, nil
}
