package mongoevents

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/sillar-go/sillar/internal/id"
	"github.com/sillar-go/sillar/repository/eventstore"
)

// snapshot's id is schema/stream: one of each stream and schema.
type snapshot struct {
	ID      string `bson:"_id"`
	Version int64  `bson:"version"`
	State   string `bson:"state"`
}

func snapshotID(stream string, schema int) string { return fmt.Sprintf("%d/%s", schema, stream) }

// Redact implements eventstore.Store, a document after the other. It can be repeated where it failed.
func (s *Store) Redact(ctx context.Context, stream string) error {
	return s.erase(ctx, "redact", stream, false)
}

// Delete implements eventstore.Store. It joins no transaction, and can be repeated where it failed.
func (s *Store) Delete(ctx context.Context, stream string, expected int64) error {
	version, err := s.version(ctx, stream)
	if !errors.Is(err, eventstore.ErrDeleted) { // else what an earlier call left may have to be erased
		switch {
		case err != nil:
			return fmt.Errorf("mongoevents: delete %s: %w", stream, err)
		case version == 0 && expected <= 0:
			return nil
		}
		if session := mongo.SessionFromContext(ctx); session != nil && session.TransactionRunning() {
			return fmt.Errorf("%w: %s", ErrTransaction, stream)
		}
		_, err = s.inTurn(ctx, stream, expected, []eventstore.Event{eventstore.Deletion(id.New())})
		if err != nil && !errors.Is(err, eventstore.ErrDeleted) { // by another
			return fmt.Errorf("mongoevents: delete %s: %w", stream, err)
		}
		s.wake()
	}
	return s.erase(ctx, "delete", stream, true)
}

// erase empties the events of a stream and deletes its snapshots. remove keeps only the ids of the events.
func (s *Store) erase(ctx context.Context, doing, stream string, remove bool) error {
	for next := int64(0); ; {
		batches, err := s.read(ctx, bson.D{{Key: "stream", Value: stream},
			{Key: "first", Value: bson.D{{Key: "$gt", Value: next}}}}, "first", page)
		if err != nil {
			return fmt.Errorf("mongoevents: %s %s: %w", doing, stream, err)
		}
		for _, b := range batches {
			next = b.First
			if b.Erased || b.Closed {
				continue
			}
			for i := range b.Events {
				b.Events[i].Data, b.Events[i].Metadata = "null", "{}"
				if remove {
					b.Events[i] = event{ID: b.Events[i].ID}
				}
			}
			set := bson.D{{Key: "events", Value: b.Events}}
			if remove {
				set = append(set, bson.E{Key: "erased", Value: true})
			}
			if _, err := s.events.UpdateOne(ctx, bson.D{{Key: "_id", Value: b.Position}},
				bson.D{{Key: "$set", Value: set}}); err != nil {
				return fmt.Errorf("mongoevents: %s %s: %w", doing, stream, err)
			}
		}
		if len(batches) < page {
			break
		}
	}
	// A snapshot is found by its schema and stream: 0 and more digits, and then the stream.
	pattern := "^[0-9]+/" + regexp.QuoteMeta(stream) + "$"
	if _, err := s.snapshots.DeleteMany(ctx, bson.D{{Key: "_id",
		Value: bson.D{{Key: "$regex", Value: pattern}}}}); err != nil {
		return fmt.Errorf("mongoevents: %s %s: %w", doing, stream, err)
	}
	return nil
}

// SaveSnapshot implements eventstore.Store. It joins no transaction: its events have been committed, and a duplicate
// key, which is how one learns of a newer snapshot, would end the transaction.
func (s *Store) SaveSnapshot(ctx context.Context, snap eventstore.Snapshot) error {
	ctx = mongo.NewSessionContext(ctx, nil)
	older := bson.D{{Key: "_id", Value: snapshotID(snap.Stream, snap.Schema)},
		{Key: "version", Value: bson.D{{Key: "$lt", Value: snap.Version}}}}
	set := bson.D{{Key: "$set", Value: bson.D{{Key: "version", Value: snap.Version},
		{Key: "state", Value: string(snap.State)}}}}
	_, err := s.snapshots.UpdateOne(ctx, older, set, options.UpdateOne().SetUpsert(true))
	if mongo.IsDuplicateKeyError(err) { // there is one, and it is as new; or another has just made the first
		_, err = s.snapshots.UpdateOne(ctx, older, set)
	}
	if err != nil {
		return fmt.Errorf("mongoevents: save a snapshot of %s: %w", snap.Stream, err)
	}
	return nil
}

// LoadSnapshot implements eventstore.Store.
func (s *Store) LoadSnapshot(ctx context.Context, stream string, schema int) (eventstore.Snapshot, bool, error) {
	out := eventstore.Snapshot{Stream: stream, Schema: schema}
	var d snapshot
	err := s.snapshots.FindOne(ctx, bson.D{{Key: "_id", Value: snapshotID(stream, schema)}}).Decode(&d)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return out, false, nil
	}
	if err != nil {
		return out, false, fmt.Errorf("mongoevents: load the snapshot of %s: %w", stream, err)
	}
	out.Version, out.State = d.Version, json.RawMessage(d.State)
	return out, true, nil
}

type checkpoint struct {
	Projection string `bson:"_id"`
	Place      string `bson:"place"`
}

// Checkpoint implements eventstore.Store.
func (s *Store) Checkpoint(ctx context.Context, projection string) (string, error) {
	var d checkpoint
	err := s.checkpoints.FindOne(ctx, bson.D{{Key: "_id", Value: projection}}).Decode(&d)
	if err != nil && !errors.Is(err, mongo.ErrNoDocuments) {
		return "", fmt.Errorf("mongoevents: checkpoint of %s: %w", projection, err)
	}
	return d.Place, nil
}

// MoveCheckpoint implements eventstore.Store.
func (s *Store) MoveCheckpoint(ctx context.Context, projection, from, to string) error {
	at := bson.D{{Key: "_id", Value: projection}, {Key: "place", Value: from}}
	set := bson.D{
		{Key: "$set", Value: bson.D{{Key: "place", Value: to}}},
		{Key: "$inc", Value: bson.D{{Key: "moves", Value: 1}}}, // a write, also where it stays
	}
	var moved int64
	res, err := s.checkpoints.UpdateOne(ctx, at, set, options.UpdateOne().SetUpsert(from == ""))
	switch {
	case mongo.IsDuplicateKeyError(err): // it is elsewhere
		err = nil
	case err == nil:
		moved = res.MatchedCount + res.UpsertedCount
	}
	if err != nil {
		return fmt.Errorf("mongoevents: move the checkpoint of %s: %w", projection, err)
	}
	if moved == 0 {
		return fmt.Errorf("%w: %s", eventstore.ErrCheckpoint, projection)
	}
	return nil
}
