package sagamongo

import (
	"context"
	"errors"
	"fmt"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readconcern"

	"github.com/sillar-go/sillar/internal/changestream"
	"github.com/sillar-go/sillar/saga"
)

// unauthorized is the code of a client that lacks the privilege changeStream.
const unauthorized = 13

// Listen implements saga.Listener by a change stream, which takes a replica set: on other servers it returns nil. The
// error is errors.ErrUnsupported where the client may not open one. A connection that is silent for 5 s is an error.
func (s *Store) Listen(ctx context.Context, ended func(ids []string)) error {
	_, err := changestream.Follow(alone(ctx), s.watch, func(events []bson.Raw) {
		var ids []string
		for _, e := range events {
			if id, ok := e.Lookup("documentKey", "_id").StringValueOK(); ok {
				ids = append(ids, id)
			}
		}
		ended(ids)
	})
	if err == nil || changestream.Unsupported(err) {
		return nil
	}
	var refused mongo.CommandError
	if errors.As(err, &refused) && refused.Code == unauthorized {
		err = fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
	}
	return fmt.Errorf("sagamongo: listen: %w", err)
}

// watch opens a stream of the updates by which sagas end.
func (s *Store) watch(ctx context.Context) (*mongo.ChangeStream, error) {
	ends := bson.D{{Key: "$match", Value: bson.D{
		{Key: "updateDescription.updatedFields.status", Value: bson.D{
			{Key: "$in", Value: []saga.Status{saga.Completed, saga.Compensated, saga.Stuck}},
		}},
	}}}
	ids := bson.D{{Key: "$project", Value: bson.D{{Key: "documentKey", Value: 1}}}} // and the token, which is _id
	return s.sagas.Clone(options.Collection().SetReadConcern(readconcern.Majority())).
		Watch(ctx, mongo.Pipeline{ends, ids})
}
