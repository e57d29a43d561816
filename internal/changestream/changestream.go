// Package changestream follows change streams of MongoDB. It bounds each wait for the server: a connection that has
// gone silent is an error.
package changestream

import (
	"context"
	"errors"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

// silence is how long the server may take for an answer. Without changes it answers each second.
const silence = 5 * time.Second

// Follow opens a stream and calls changed with the events of each answer of the server. It returns nil when ctx ends,
// and an error when the stream cannot be opened, breaks, or is silent for 5 s. opened reports whether it was open. open
// asks for the read concern majority: the server refuses another one, which a client may have as its default.
func Follow(
	ctx context.Context, open func(ctx context.Context) (*mongo.ChangeStream, error), changed func(events []bson.Raw),
) (opened bool, err error) {
	opening, cancel := context.WithTimeout(ctx, silence)
	defer cancel()
	stream, err := open(opening)
	if err != nil {
		return false, err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = stream.Close(ctx)
	}()
	for ctx.Err() == nil {
		events, err := next(ctx, stream)
		if len(events) > 0 {
			changed(events)
		}
		if err != nil && ctx.Err() == nil {
			return true, err
		}
	}
	return true, nil
}

// next waits for the server's next answer and returns the events in it.
func next(ctx context.Context, stream *mongo.ChangeStream) (events []bson.Raw, err error) {
	ctx, cancel := context.WithTimeout(ctx, silence)
	defer cancel()
	for stream.TryNext(ctx) {
		events = append(events, slices.Clone(stream.Current))
		if stream.RemainingBatchLength() == 0 {
			return events, nil
		}
	}
	if stream.Err() == nil && stream.ID() == 0 {
		return events, errors.New("the server has closed the change stream")
	}
	return events, stream.Err()
}

// Unsupported reports whether a server will never have a change stream: it is no replica set, or of another make.
// Whatever else it refuses, as while it elects a primary, may be otherwise the next time.
func Unsupported(err error) bool {
	var refused mongo.CommandError
	return errors.As(err, &refused) && slices.Contains([]int32{
		40573, // "The $changeStream stage is only supported on replica sets"
		40324, // "Unrecognized pipeline stage name"
		59,    // CommandNotFound
		115,   // CommandNotSupported: FerretDB
		238,   // NotImplemented
	}, refused.Code)
}
