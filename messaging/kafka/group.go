package kafka

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/sillar-go/sillar/messaging"
)

// positions returns where a group that is new begins in topics.
func (b *Broker) positions(ctx context.Context, start messaging.Start, topics []string) (kadm.ListedOffsets, error) {
	if len(topics) == 0 { // which kadm takes for all
		return nil, nil
	}
	switch t := start.Time(); {
	case start.Earliest():
		return listed(b.adm.ListStartOffsets(ctx, topics...))
	case !t.IsZero():
		return listed(b.adm.ListOffsetsAfterMilli(ctx, t.UnixMilli(), topics...))
	}
	return listed(b.adm.ListEndOffsets(ctx, topics...))
}

func listed(all kadm.ListedOffsets, err error) (kadm.ListedOffsets, error) {
	if err == nil {
		err = all.Error()
	}
	return all, err
}

// assigned is called with the partitions that the stream has got and the offsets that are committed for them. It reads
// what else was settled before, and returns where to begin.
func (s *stream) assigned(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (
	map[string]map[int32]kgo.Offset, error) {
	<-s.made
	topics := make([]string, 0, len(offsets))
	for topic := range offsets {
		topics = append(topics, topic)
	}
	var have kadm.OffsetResponses
	if len(topics) > 0 {
		var err error
		have, err = s.b.adm.FetchOffsetsForTopics(ctx, s.b.groupID(s.sub.Group), topics...)
		if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
			return nil, err
		}
	}
	starts := s.b.registry.starts(s.sub.Group)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = nil
	for topic, partitions := range offsets {
		for id := range partitions {
			at := place{topic, id}
			if p := s.parts[at]; p != nil && !p.leaving { // it has not moved
				partitions[id] = kgo.NewOffset().At(p.seen).WithEpoch(-1)
				continue
			}
			p := &partition{place: at}
			s.parts[at] = p
			if c, ok := have.Lookup(topic, id); ok && c.At >= 0 {
				if c.Err != nil {
					return nil, c.Err
				}
				p.seen, p.settled = c.At, decodeSpans(c.At, c.Metadata)
			} else if from, ok := starts[at]; ok {
				p.seen, p.dirty = from, true // committed at once: it is the group's position from now on
			} else {
				continue // it begins with the oldest
			}
			partitions[id] = kgo.NewOffset().At(p.seen).WithEpoch(-1)
		}
	}
	return offsets, nil
}

// revoked is called before partitions go to another member: it waits for what is being handled, and commits.
func (s *stream) revoked(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
	<-s.made
	deadline := time.NewTimer(max(s.b.cfg.RevokeWait, 0))
	defer deadline.Stop()
	parts := s.withdraw(lost)
	for s.busy(parts) {
		select {
		case <-s.free:
			continue
		case <-deadline.C:
			s.b.cfg.Logger.Warn("kafka: partitions move while messages of them are being handled, which will be handled again",
				"group", s.sub.Group)
		}
		break
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.b.ctx), closeTimeout)
	defer cancel()
	s.commitOf(ctx, parts, true)
}

// lost is called when the group has given the partitions to another member already.
func (s *stream) lost(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
	<-s.made
	parts := s.withdraw(lost)
	s.committing.Lock()
	defer s.committing.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(parts)
}

// withdraw delivers no more of partitions.
func (s *stream) withdraw(lost map[string][]int32) (parts []*partition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for topic, ids := range lost {
		for _, id := range ids {
			if p := s.parts[place{topic, id}]; p != nil {
				p.leaving = true
				parts = append(parts, p)
			}
		}
	}
	leaving := func(d *delivery) bool { return d.p.leaving }
	s.ready = slices.DeleteFunc(s.ready, leaving)
	s.waiting = slices.DeleteFunc(s.waiting, leaving)
	s.waiting.init()
	s.limitWaiting()
	signal(s.room)
	return parts
}

// busy reports whether deliveries of partitions are being handled that can still be settled.
func (s *stream) busy(parts []*partition) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.closed && slices.ContainsFunc(parts, func(p *partition) bool { return p.held > 0 })
}

// forget drops partitions. Their deliveries cannot be settled any more. The mutex is held.
func (s *stream) forget(parts []*partition) {
	for _, p := range parts {
		p.gone = true
		s.held -= p.held
		p.held = 0
		if s.parts[p.place] == p {
			delete(s.parts, p.place)
		}
	}
	signal(s.room)
	signal(s.arrived)
	if s.stopped && s.held == 0 {
		s.leaveSoon()
	}
}

// commit commits what has been settled since the last time, with what a commit that is under way fails to commit.
func (s *stream) commit(ctx context.Context) {
	s.mu.Lock()
	var parts []*partition
	for _, p := range s.parts {
		if !p.leaving {
			parts = append(parts, p)
		}
	}
	s.mu.Unlock()
	s.commitOf(ctx, parts, false)
}

// commitOf commits the positions of partitions, and forgets these when they go.
func (s *stream) commitOf(ctx context.Context, parts []*partition, forget bool) {
	s.committing.Lock()
	defer s.committing.Unlock()
	offsets := map[string]map[int32]kgo.EpochOffset{}
	metas := map[place]string{}
	s.mu.Lock()
	for _, p := range parts {
		if p.gone || !p.dirty {
			continue
		}
		at, settled := p.snapshot()
		if offsets[p.topic] == nil {
			offsets[p.topic] = map[int32]kgo.EpochOffset{}
		}
		offsets[p.topic][p.partition] = kgo.EpochOffset{Epoch: -1, Offset: at}
		metas[p.place] = encodeSpans(at, settled)
		p.dirty = false
	}
	if forget {
		s.forget(parts)
	}
	s.mu.Unlock()
	if len(offsets) == 0 {
		return
	}
	ctx = kgo.PreCommitFnContext(ctx, func(req *kmsg.OffsetCommitRequest) error {
		for _, t := range req.Topics {
			for i := range t.Partitions {
				if meta := metas[place{t.Topic, t.Partitions[i].Partition}]; meta != "" {
					t.Partitions[i].Metadata = kmsg.StringPtr(meta)
				}
			}
		}
		return nil
	})
	s.cl.CommitOffsetsSync(ctx, offsets, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse,
		err error) {
		failed := func(at place, err error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			if p := s.parts[at]; p != nil {
				p.dirty = true // once more
			}
			if !errors.Is(err, kerr.RebalanceInProgress) && !errors.Is(err, context.Canceled) {
				s.b.cfg.Logger.Warn("kafka: cannot commit what was settled", "group", s.sub.Group, "kafka_topic", at.topic,
					"partition", at.partition, "error", err)
			}
		}
		if err != nil {
			for at := range metas {
				failed(at, err)
			}
			return
		}
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					failed(place{t.Topic, p.Partition}, err)
				}
			}
		}
	})
}
