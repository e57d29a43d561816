package mongorepo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/internal/mongoerror"
)

// CreateMany implements repository.Repository. The documents before one that fails are stored, outside a transaction.
func (r *Repo[E]) CreateMany(ctx context.Context, list []E) ([]E, error) {
	out := make([]E, len(list))
	docs := make([]any, len(list))
	now := time.Now()
	for i := range list {
		e := list[i]
		if r.cfg.ObjectIDs {
			r.life.Identify(&e, bson.NewObjectID().Hex())
		}
		r.life.Import(&e, now)
		doc, err := r.document(&e)
		if err != nil {
			return nil, err
		}
		out[i], docs[i] = e, doc
	}
	if len(docs) == 0 {
		return out, nil
	}
	if _, err := r.c.InsertMany(ctx, docs); err != nil {
		return nil, r.fail("create in", err)
	}
	return out, nil
}

// Put implements repository.Repository.
func (r *Repo[E]) Put(ctx context.Context, e E) (E, error) {
	var zero E
	if r.cfg.ObjectIDs {
		r.life.Identify(&e, bson.NewObjectID().Hex())
	}
	r.life.Init(&e)
	doc, err := r.document(&e)
	if err != nil {
		return zero, err
	}
	var set bson.D
	for _, f := range doc[1:] {
		if f.Key != r.key(r.m.Version) && f.Key != r.key(r.m.CreatedAt) {
			set = append(set, f)
		}
	}
	change := bson.D{{Key: "$set", Value: set}, {Key: "$inc", Value: bson.D{{Key: r.key(r.m.Version), Value: int64(1)}}}}
	for {
		raw, err := r.c.FindOneAndUpdate(ctx, live(doc[0]), change,
			options.FindOneAndUpdate().SetReturnDocument(options.After)).Raw()
		if err == nil {
			var stored E
			err = r.decode(raw, &stored)
			return stored, err
		}
		if !errors.Is(err, mongo.ErrNoDocuments) {
			return zero, r.fail("put in", err)
		}
		_, err = r.c.InsertOne(ctx, doc)
		if err == nil {
			return e, nil
		}
		if !mongo.IsDuplicateKeyError(err) || mongoerror.Index(err) != "_id_" || r.buried(ctx, doc[0]) {
			return zero, r.fail("put in", err)
		}
	} // another one was inserted at the same time
}

// buried reports whether the document with an _id is a tombstone.
func (r *Repo[E]) buried(ctx context.Context, id bson.E) bool {
	n, err := r.latest.CountDocuments(ctx, bson.D{id, {Key: DeletedField, Value: bson.D{{Key: "$exists", Value: true}}}})
	return n > 0 || err != nil
}

// UpdateWhere implements repository.Repository.
func (r *Repo[E]) UpdateWhere(
	ctx context.Context, where repository.Filter[E], set ...repository.Assignment[E],
) (int64, error) {
	values, err := repository.Assignments(set)
	if err != nil {
		return 0, err
	}
	n, err := where.Node()
	if err != nil {
		return 0, err
	}
	fields := bson.D{{Key: r.key(r.m.UpdatedAt), Value: value(time.Now().UTC())}}
	for i, v := range values {
		fields = append(fields, bson.E{Key: r.key(i), Value: value(v)})
	}
	res, err := r.c.UpdateMany(ctx, live(bson.E{Key: "$and", Value: bson.A{r.filter(n)}}), bson.D{
		{Key: "$set", Value: fields}, {Key: "$inc", Value: bson.D{{Key: r.key(r.m.Version), Value: int64(1)}}}})
	if err != nil {
		return 0, r.fail("update in", fmt.Errorf("by filter: %w", err))
	}
	return res.MatchedCount, nil
}

// DeleteWhere implements repository.Repository. Documents with effects that were not drained yet become tombstones.
func (r *Repo[E]) DeleteWhere(ctx context.Context, where repository.Filter[E]) (int64, error) {
	n, err := where.Node()
	if err != nil {
		return 0, err
	}
	selected := bson.E{Key: "$and", Value: bson.A{r.filter(n)}}
	drained := bson.E{Key: EffectsField + ".0", Value: bson.D{{Key: "$exists", Value: false}}}
	removed, err := r.c.DeleteMany(ctx, live(selected, drained))
	if err != nil {
		return 0, r.fail("delete from", fmt.Errorf("by filter: %w", err))
	}
	buried, err := r.c.UpdateMany(ctx, live(selected), r.tombstone())
	if err != nil {
		return removed.DeletedCount, r.fail("delete from", fmt.Errorf("by filter: %w", err))
	}
	return removed.DeletedCount + buried.MatchedCount, nil
}

// tombstone is the change that leaves of a document what has yet to be drained.
func (r *Repo[E]) tombstone() bson.D {
	var unset bson.D
	for i := range r.m.Columns {
		if i != r.m.ID {
			unset = append(unset, bson.E{Key: r.key(i), Value: ""})
		}
	}
	return bson.D{{Key: "$set", Value: bson.D{{Key: DeletedField, Value: true}}}, {Key: "$unset", Value: unset}}
}
