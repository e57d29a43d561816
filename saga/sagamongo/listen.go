package sagamongo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readconcern"

	"github.com/sillar-go/sillar/saga"
)

// silence is how long the server may take for an answer. Without changes it answers each second.
const silence = 5 * time.Second

// unauthorized is the code of a client that lacks the privilege changeStream.
const unauthorized = 13

// Listen implements saga.Listener by a change stream, which takes a replica set: on other servers it returns nil. The
// error is errors.ErrUnsupported where the client may not open one. A connection that is silent for 5 s is an error.
func (s *Store) Listen(ctx context.Context, ended func(ids []string)) error {
	stream, err := s.watch(ctx)
	if unsupported(err) {
		return nil
	}
	var refused mongo.CommandError
	if errors.As(err, &refused) && refused.Code == unauthorized {
		err = fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
	}
	if err != nil {
		return fmt.Errorf("sagamongo: listen: %w", err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = stream.Close(ctx)
	}()
	for ctx.Err() == nil {
		ids, err := next(ctx, stream)
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("sagamongo: listen: %w", err)
		}
		if len(ids) > 0 {
			ended(ids)
		}
	}
	return nil
}

// watch opens a stream of the updates by which sagas end. It asks for the majority's by itself: the server refuses
// another read concern, which a client may have as its default.
func (s *Store) watch(ctx context.Context) (*mongo.ChangeStream, error) {
	ctx, cancel := context.WithTimeout(alone(ctx), silence)
	defer cancel()
	ends := bson.D{{Key: "$match", Value: bson.D{
		{Key: "updateDescription.updatedFields.status", Value: bson.D{
			{Key: "$in", Value: []saga.Status{saga.Completed, saga.Compensated, saga.Stuck}},
		}},
	}}}
	ids := bson.D{{Key: "$project", Value: bson.D{{Key: "documentKey", Value: 1}}}} // and the token, which is _id
	return s.sagas.Clone(options.Collection().SetReadConcern(readconcern.Majority())).
		Watch(ctx, mongo.Pipeline{ends, ids})
}

// next waits for the server's next answer and returns the sagas in it.
func next(ctx context.Context, stream *mongo.ChangeStream) (ids []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, silence)
	defer cancel()
	for stream.TryNext(ctx) {
		if id, ok := stream.Current.Lookup("documentKey", "_id").StringValueOK(); ok {
			ids = append(ids, id)
		}
		if stream.RemainingBatchLength() == 0 {
			return ids, nil
		}
	}
	if stream.Err() == nil && stream.ID() == 0 {
		return ids, errors.New("the server has closed the change stream")
	}
	return ids, stream.Err()
}

// unsupported reports whether a server will never have a change stream: it is no replica set, or of another make.
// Whatever else it refuses, as while it elects a primary, may be otherwise the next time.
func unsupported(err error) bool {
	var refused mongo.CommandError
	return errors.As(err, &refused) && slices.Contains([]int32{
		40573, // "The $changeStream stage is only supported on replica sets"
		40324, // "Unrecognized pipeline stage name"
		59,    // CommandNotFound
		115,   // CommandNotSupported: FerretDB
		238,   // NotImplemented
	}, refused.Code)
}
