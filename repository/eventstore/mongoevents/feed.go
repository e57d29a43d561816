package mongoevents

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/sillar-go/sillar/repository/eventstore"
)

// page is how many documents are fetched at once: no cursor of the server's stays open while the caller looks at them.
const page = 200

func (s *Store) read(ctx context.Context, filter bson.D, sort string, limit int) (out []batch, err error) {
	cur, err := s.events.Find(ctx, filter, options.Find().SetSort(bson.D{{Key: sort, Value: 1}}).SetLimit(int64(limit)).
		SetProjection(bson.D{{Key: "_effects", Value: 0}, {Key: "_relay", Value: 0}}))
	if err != nil {
		return nil, err
	}
	return out, cur.All(ctx, &out)
}

// LoadFrom implements eventstore.Store.
func (s *Store) LoadFrom(ctx context.Context, stream string, after int64) iter.Seq2[eventstore.Recorded, error] {
	return func(yield func(eventstore.Recorded, error) bool) {
		fail := func(err error) { yield(eventstore.Recorded{}, fmt.Errorf("mongoevents: load %s: %w", stream, err)) }
		from, err := s.begin(ctx, stream, after)
		if err != nil {
			fail(err)
			return
		}
		for next := from; ; {
			found, err := s.read(ctx, bson.D{{Key: "stream", Value: stream},
				{Key: "first", Value: bson.D{{Key: "$gte", Value: next}}}}, "first", page)
			if err != nil {
				fail(err)
				return
			}
			for _, b := range found {
				if b.First != next {
					fail(fmt.Errorf("%w: version %d", ErrGap, next))
					return
				}
				events, err := b.recorded(min(max(after-b.First+1, 0), b.Count))
				if err != nil {
					fail(err)
					return
				}
				for _, e := range events {
					if !yield(e, nil) {
						return
					}
				}
				next = b.First + b.Count
			}
			if len(found) < page {
				return
			}
		}
	}
}

// begin returns the version at which the document begins that holds a version, so that loading after a snapshot does
// not read what comes before it.
func (s *Store) begin(ctx context.Context, stream string, version int64) (int64, error) {
	if version <= 0 {
		return 1, nil
	}
	var b batch
	err := s.events.FindOne(ctx, bson.D{{Key: "stream", Value: stream},
		{Key: "first", Value: bson.D{{Key: "$lte", Value: version}}}},
		options.FindOne().SetSort(bson.D{{Key: "first", Value: -1}}).SetProjection(bson.D{{Key: "first", Value: 1},
			{Key: "count", Value: 1}})).Decode(&b)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return 1, nil
	}
	if b.First+b.Count-1 == version {
		return version + 1, err
	}
	return b.First, err
}

// cursor is a place in the feed: the position of a document, and how many of its events have been read. Its text is
// <position> or <position>-<read>.
type cursor struct{ at, skip int64 }

func parse(text string) (cursor, error) {
	if text == "" {
		return cursor{at: 1}, nil
	}
	at, skip, both := strings.Cut(text, "-")
	if !both {
		skip = "0"
	}
	a, err1 := strconv.ParseUint(at, 10, 63)
	k, err2 := strconv.ParseUint(skip, 10, 31)
	if err1 != nil || err2 != nil || a == 0 || both && k == 0 {
		return cursor{}, eventstore.ErrCursor
	}
	return cursor{int64(a), int64(k)}, nil
}

func (c cursor) String() string {
	if c.skip == 0 {
		return strconv.FormatInt(c.at, 10)
	}
	return fmt.Sprintf("%d-%d", c.at, c.skip)
}

// Read implements eventstore.Store.
func (s *Store) Read(ctx context.Context, from string, limit int) ([]eventstore.Recorded, string, error) {
	for {
		events, next, err := s.ReadFiltered(ctx, eventstore.Filter{}, from, limit)
		if err != nil || len(events) > 0 || next == from {
			return events, next, err
		}
		from = next // what was there was deleted
	}
}

// ReadFiltered implements eventstore.Store. It is this process that filters.
func (s *Store) ReadFiltered(ctx context.Context, f eventstore.Filter, from string,
	limit int) ([]eventstore.Recorded, string, error) {
	c, err := parse(from)
	if err != nil {
		return nil, "", err
	}
	if limit <= 0 {
		return nil, from, nil
	}
	documents := page
	if f.All() {
		documents = min(limit, page)
	}
	found, err := s.read(ctx, bson.D{{Key: "_id", Value: bson.D{{Key: "$gte", Value: c.at}}}}, "_id", documents)
	if err != nil {
		return nil, "", fmt.Errorf("mongoevents: read: %w", err)
	}
	if len(found) == 0 {
		return nil, from, nil
	}
	var out []eventstore.Recorded
	for _, b := range found {
		if b.Position != c.at {
			return nil, "", fmt.Errorf("%w: position %d", ErrGap, c.at)
		}
		if c.skip >= b.Count {
			return nil, "", eventstore.ErrCursor
		}
		events, err := b.recorded(c.skip)
		if err != nil {
			return nil, "", fmt.Errorf("mongoevents: read: %w", err)
		}
		for _, e := range events {
			if len(out) == limit {
				return out, c.String(), nil
			}
			if f.Selects(e.Stream, e.Type) {
				out = append(out, e)
			}
			c.skip++
		}
		c = cursor{at: b.Position + b.Count}
	}
	return out, c.String(), nil
}

// Lag implements eventstore.Store.
func (s *Store) Lag(ctx context.Context, from string) (int64, error) {
	c, err := parse(from)
	if err != nil {
		return 0, err
	}
	end, err := s.last(ctx)
	if err != nil {
		return 0, fmt.Errorf("mongoevents: lag: %w", err)
	}
	return max(end-(c.at-1)-c.skip, 0), nil
}

// wake wakes the callers of Wait, because this process has appended.
func (s *Store) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.changed)
	s.changed = make(chan struct{})
}

// Wait implements eventstore.Store.
func (s *Store) Wait(ctx context.Context) {
	s.mu.Lock()
	changed := s.changed
	s.mu.Unlock()
	t := time.NewTimer(s.cfg.Poll)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-changed:
	case <-t.C:
	}
}
