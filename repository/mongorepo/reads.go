package mongorepo

import (
	"context"
	"errors"
	"iter"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/driver"
)

// Get implements repository.Repository.
func (r *Repo[E]) Get(ctx context.Context, id string) (E, error) {
	return r.one(ctx, r.c, "get from", id)
}

func (r *Repo[E]) one(ctx context.Context, c *mongo.Collection, doing, id string) (E, error) {
	e, _, err := r.whole(ctx, c, doing, id)
	return e, err
}

// whole returns the entity and its document.
func (r *Repo[E]) whole(ctx context.Context, c *mongo.Collection, doing, id string) (e E, raw bson.Raw, err error) {
	key, ok := r.id(id)
	if !ok {
		return e, nil, r.missing(doing, id)
	}
	raw, err = c.FindOne(ctx, live(bson.E{Key: "_id", Value: key})).Raw()
	if errors.Is(err, mongo.ErrNoDocuments) {
		return e, nil, r.missing(doing, id)
	}
	if err != nil {
		return e, nil, r.fail(doing, err)
	}
	err = r.decode(raw, &e)
	return e, raw, err
}

// held selects the document with an id and a version. Documents of other programs have none, which counts as 0.
func (r *Repo[E]) held(id string, version int64) bson.D {
	key, _ := r.id(id)
	var expected any = version
	if version == 0 {
		expected = bson.D{{Key: "$in", Value: bson.A{int64(0), nil}}}
	}
	return live(bson.E{Key: "_id", Value: key}, bson.E{Key: r.key(r.m.Version), Value: expected})
}

// GetMany implements repository.Repository.
func (r *Repo[E]) GetMany(ctx context.Context, ids []string) ([]E, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	keys := bson.A{}
	for _, id := range ids {
		if key, ok := r.id(id); ok {
			keys = append(keys, key)
		}
	}
	found, err := r.read(ctx, live(bson.E{Key: "_id", Value: bson.D{{Key: "$in", Value: keys}}}), options.Find())
	if err != nil {
		return nil, r.fail("get many from", err)
	}
	return r.life.InOrder(found, ids), nil
}

func (r *Repo[E]) read(ctx context.Context, filter bson.D, opt *options.FindOptionsBuilder) (found []E, err error) {
	cur, err := r.c.Find(ctx, filter, opt)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, cur.Close(context.WithoutCancel(ctx))) }()
	for cur.Next(ctx) {
		var e E
		if err := r.decode(cur.Current, &e); err != nil {
			return nil, err
		}
		found = append(found, e)
	}
	return found, cur.Err()
}

// Find implements repository.Repository.
func (r *Repo[E]) Find(ctx context.Context, q repository.Query[E]) (repository.Page[E], error) {
	p, err := q.Plan()
	if err != nil {
		return repository.Page[E]{}, err
	}
	var sort bson.D
	for _, k := range p.Keys {
		dir := 1
		if k.Desc {
			dir = -1
		}
		sort = append(sort, bson.E{Key: r.key(k.Column), Value: dir})
	}
	opt := options.Find().SetSort(sort).SetLimit(int64(p.Limit + 1)).SetSkip(int64(p.Offset))
	found, err := r.read(ctx, r.page(p), opt)
	if err != nil {
		return repository.Page[E]{}, r.fail("find in", err)
	}
	page, next := driver.Page(p, found)
	return repository.Page[E]{Items: page, Next: next}, nil
}

// page selects what a plan selects. By id alone the bound of the page is a condition of its own, of the first page too:
// servers then read in the order of the index and stop at the limit, where some would otherwise sort all.
func (r *Repo[E]) page(p *driver.Plan) bson.D {
	if len(p.Keys) > 1 {
		return live(bson.E{Key: "$and", Value: bson.A{r.filter(p.Where)}})
	}
	bound := bson.D{{Key: "$gte", Value: bson.MinKey{}}}
	if p.After != nil {
		op := driver.OpGt
		if p.Keys[0].Desc {
			op = driver.OpLt
		}
		bound = r.filter(driver.Node{Op: op, Column: r.m.ID, Value: p.After[0]})[0].Value.(bson.D)
	}
	filter := live(bson.E{Key: "_id", Value: bound})
	if p.Filter.Op != driver.OpAll {
		filter = append(filter, bson.E{Key: "$and", Value: bson.A{r.filter(p.Filter)}})
	}
	return filter
}

// Each implements repository.Repository.
func (r *Repo[E]) Each(ctx context.Context, q repository.Query[E]) iter.Seq2[E, error] {
	return q.Pages(ctx, r.Find)
}

// Count implements repository.Repository.
func (r *Repo[E]) Count(ctx context.Context, where repository.Filter[E]) (int64, error) {
	n, err := where.Node()
	if err != nil {
		return 0, err
	}
	count, err := r.c.CountDocuments(ctx, live(bson.E{Key: "$and", Value: bson.A{r.filter(n)}}))
	return count, r.fail("count in", err)
}
