package sagamongo

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/sillar-go/sillar/saga"
)

// indexes returns the indexes by which Claim, List, Shapes and Prune read no more than they return.
func indexes() []mongo.IndexModel {
	var list []mongo.IndexModel
	for _, fields := range [][]string{
		{"owner", "status", "name", "version", "wake_at", "_id"},
		{"status", "created_at", "_id"},
		{"name", "status", "created_at", "_id"},
		{"status", "name", "version", "shape"},
		{"attributes", "created_at", "_id"},
		{"status", "wake_at", "_id"},
	} {
		var keys bson.D
		for _, field := range fields {
			keys = append(keys, bson.E{Key: field, Value: 1})
		}
		list = append(list, mongo.IndexModel{Keys: keys})
	}
	return list
}

// row is a saga as it was read. err says why it does not decode; the scalar fields of the record that decode are set
// then.
type row struct {
	record saga.Record
	err    error
}

// undecodable is the cause of a saga that does not decode.
func undecodable(err error) string { return "the stored saga does not decode: " + err.Error() }

func decode(raw bson.Raw) row {
	var d document
	if err := bson.Unmarshal(raw, &d); err != nil {
		id, _ := raw.Lookup("_id").StringValueOK()
		name, _ := raw.Lookup("name").StringValueOK()
		status, _ := raw.Lookup("status").StringValueOK()
		return row{saga.Record{ID: id, Name: name, Status: saga.Status(status)}, err}
	}
	r := saga.Record{ID: d.ID, Name: d.Name, Version: d.Version, Shape: d.Shape, Status: d.Status, Cursor: d.Cursor,
		State: []byte(d.State), FailedStep: d.FailedStep, Cause: d.Cause, Headers: d.Headers, Revision: d.Revision,
		Fence: d.Fence, Owner: d.Owner, WakeAt: time.UnixMicro(d.WakeAt).UTC(), SignalSeq: d.SignalSeq,
		CreatedAt: time.UnixMicro(d.CreatedAt).UTC(), UpdatedAt: time.UnixMicro(d.UpdatedAt).UTC()}
	for _, s := range d.Signals {
		if r.Signals == nil {
			r.Signals = map[string][]byte{}
		}
		r.Signals[s.Name] = s.Payload
	}
	return row{r, errors.Join(json.Unmarshal([]byte(d.Steps), &r.Steps), json.Unmarshal([]byte(d.Audit), &r.Audit))}
}

func (s *Store) find(ctx context.Context, filter bson.D, sort bson.D, limit int) (out []row, err error) {
	cur, err := s.sagas.Find(ctx, filter, options.Find().SetSort(sort).SetLimit(int64(limit)))
	if err != nil {
		return nil, err
	}
	var docs []bson.Raw
	if err := cur.All(ctx, &docs); err != nil {
		return nil, err
	}
	for _, raw := range docs {
		out = append(out, decode(raw))
	}
	return out, nil
}

// alive returns those of the nodes that have a lease.
func (s *Store) alive(ctx context.Context, now time.Time, nodes []string) (map[string]bool, error) {
	alive := map[string]bool{}
	if len(nodes) == 0 {
		return alive, nil
	}
	cur, err := s.nodes.Find(ctx, bson.D{{Key: "_id", Value: bson.D{{Key: "$in", Value: nodes}}},
		{Key: "expires_at", Value: bson.D{{Key: "$gt", Value: now.UnixMicro()}}}})
	var leases []struct {
		Node string `bson:"_id"`
	}
	if err == nil {
		err = cur.All(ctx, &leases)
	}
	if err != nil {
		return nil, fmt.Errorf("sagamongo: look at leases: %w", err)
	}
	for _, l := range leases {
		alive[l.Node] = true
	}
	return alive, nil
}

// deadOwners returns the owners of sagas that have no lease. Only unfinished sagas have an owner.
func (s *Store) deadOwners(ctx context.Context, now time.Time) (dead []string, err error) {
	var owners []string
	err = s.sagas.Distinct(ctx, "owner", bson.D{{Key: "owner", Value: bson.D{{Key: "$gt", Value: ""}}}}).Decode(&owners)
	if err != nil {
		return nil, fmt.Errorf("sagamongo: look at owners: %w", err)
	}
	alive, err := s.alive(ctx, now, owners)
	if err != nil {
		return nil, err
	}
	for _, owner := range owners {
		if !alive[owner] {
			dead = append(dead, owner)
		}
	}
	return dead, nil
}

// Claim implements saga.Store. Each saga is taken by a compare-and-set of its own: of several nodes one gets it.
func (s *Store) Claim(ctx context.Context, node string, kinds []saga.Kind, limit int) ([]saga.Claimed, error) {
	ctx = alone(ctx)
	if len(kinds) == 0 || limit <= 0 {
		return nil, nil
	}
	now, err := s.now(ctx)
	if err != nil {
		return nil, err
	}
	dead, err := s.deadOwners(ctx, now)
	if err != nil {
		return nil, err
	}
	due, err := s.due(ctx, kinds, dead, now, limit)
	if err != nil {
		return nil, fmt.Errorf("sagamongo: claim: %w", err)
	}
	// A node that came after the first look and has claimed since is alive: look again, after what it has written.
	var owners []string
	for _, row := range due {
		if row.record.Owner != "" {
			owners = append(owners, row.record.Owner)
		}
	}
	alive, err := s.alive(ctx, now, owners)
	if err != nil {
		return nil, err
	}
	var out []saga.Claimed
	for _, row := range due {
		r := row.record
		switch {
		case row.err != nil:
			if err := s.setAside(ctx, row); err != nil {
				return out, err
			}
			continue
		case alive[r.Owner]:
			continue
		}
		res, err := s.sagas.UpdateOne(
			ctx,
			bson.D{
				{Key: "_id", Value: r.ID},
				{Key: "fence", Value: r.Fence},
				{Key: "revision", Value: r.Revision},
				{Key: "owner", Value: r.Owner},
			},
			bson.D{{Key: "$set", Value: bson.D{{Key: "owner", Value: node}}},
				{Key: "$inc", Value: bson.D{{Key: "fence", Value: 1}, {Key: "revision", Value: 1}}}},
		)
		if err != nil {
			return out, fmt.Errorf("sagamongo: claim %s: %w", r.ID, err)
		}
		if res.MatchedCount == 1 {
			takenOver := r.Owner != ""
			r.Owner, r.Fence, r.Revision = node, r.Fence+1, r.Revision+1
			out = append(out, saga.Claimed{Record: r, TakenOver: takenOver})
		}
	}
	return out, nil
}

// due returns the sagas that can be claimed, oldest wake first. Free sagas of each kind, and those of dead owners, are
// looked up by themselves: the bounds of the index are then all that is asked for, and the server stops at the limit.
// Of one query with a branch for each of them FerretDB reads what the branches have in common, which is all that sleep.
func (s *Store) due(
	ctx context.Context, kinds []saga.Kind, dead []string, now time.Time, limit int,
) (due []row, err error) {
	unfinished := bson.E{Key: "status", Value: bson.D{
		{Key: "$in", Value: []saga.Status{saga.Running, saga.Compensating}},
	}}
	var filters []bson.D
	for _, k := range kinds {
		of := bson.D{unfinished, {Key: "name", Value: k.Name}, {Key: "version", Value: k.Version}}
		filters = append(filters, append(bson.D{{Key: "owner", Value: ""},
			{Key: "wake_at", Value: bson.D{{Key: "$lte", Value: now.UnixMicro()}}}}, of...))
		if len(dead) > 0 {
			filters = append(filters, append(bson.D{
				{Key: "owner", Value: bson.D{{Key: "$in", Value: dead}}},
			}, of...))
		}
	}
	for _, filter := range filters {
		found, err := s.find(ctx, filter, bson.D{{Key: "wake_at", Value: 1}, {Key: "_id", Value: 1}}, limit)
		if err != nil {
			return nil, err
		}
		due = append(due, found...)
	}
	slices.SortFunc(due, func(a, b row) int {
		return cmp.Or(a.record.WakeAt.Compare(b.record.WakeAt), strings.Compare(a.record.ID, b.record.ID))
	})
	return due[:min(limit, len(due))], nil
}

// setAside makes a saga that does not decode stuck, so that it stops nothing else. What is stored of its steps and its
// state stays as it is.
func (s *Store) setAside(ctx context.Context, row row) error {
	_, err := s.sagas.UpdateOne(ctx, bson.D{{Key: "_id", Value: row.record.ID}}, bson.D{
		{
			Key: "$set",
			Value: bson.D{
				{Key: "status", Value: saga.Stuck},
				{Key: "owner", Value: ""},
				{Key: "cause", Value: undecodable(row.err)},
			},
		},
		{Key: "$inc", Value: bson.D{{Key: "fence", Value: 1}, {Key: "revision", Value: 1}}}})
	if err != nil {
		return fmt.Errorf("sagamongo: set %s aside: %w", row.record.ID, err)
	}
	return nil
}

// List implements saga.Store. A saga that does not decode is listed with the reason as its Cause and without its steps.
func (s *Store) List(ctx context.Context, f saga.Filter) ([]saga.Record, error) {
	ctx = alone(ctx)
	limit := f.Limit
	if limit <= 0 { // MongoDB takes a negative one for its amount, in one batch
		limit = 100
	}
	rows, err := s.find(ctx, listFilter(f), bson.D{{Key: "created_at", Value: 1}, {Key: "_id", Value: 1}}, limit)
	if err != nil {
		return nil, fmt.Errorf("sagamongo: list: %w", err)
	}
	out := make([]saga.Record, 0, len(rows))
	for _, row := range rows {
		if row.err != nil {
			row.record.Cause = undecodable(row.err)
			row.record.Steps = nil
		}
		out = append(out, row.record)
	}
	return out, nil
}

// Count implements saga.Store.
func (s *Store) Count(ctx context.Context, f saga.Filter) (int, error) {
	limit := f.Limit
	if limit <= 0 {
		limit = 10_000
	}
	n, err := s.sagas.CountDocuments(alone(ctx), listFilter(f), options.Count().SetLimit(int64(limit)))
	if err != nil {
		return 0, fmt.Errorf("sagamongo: count: %w", err)
	}
	return int(n), nil
}

// listFilter names each status by itself, so that the server merges the statuses in the order of the index and stops at
// the limit. FerretDB reads and sorts what the filter selects.
func listFilter(f saga.Filter) bson.D {
	var of bson.D
	began := bson.D{}
	if !f.Since.IsZero() {
		since := f.Since.UnixMicro()
		began = append(began, bson.E{Key: "$gte", Value: since})
		if f.After != "" {
			of = append(of, bson.E{Key: "$or", Value: bson.A{
				bson.D{{Key: "created_at", Value: bson.D{{Key: "$gt", Value: since}}}},
				bson.D{{Key: "created_at", Value: since}, {Key: "_id", Value: bson.D{{Key: "$gt", Value: f.After}}}},
			}})
		}
	}
	if !f.Until.IsZero() {
		began = append(began, bson.E{Key: "$lt", Value: f.Until.UnixMicro()})
	}
	if len(began) > 0 {
		of = append(of, bson.E{Key: "created_at", Value: began})
	}
	return branchesOf(f, of)
}

// branchesOf is the filter, with a branch for each status.
func branchesOf(f saga.Filter, of bson.D) bson.D {
	if f.Name != "" {
		of = append(of, bson.E{Key: "name", Value: f.Name})
	}
	if f.Attribute != "" {
		of = append(of, bson.E{Key: "attributes", Value: attribute(f.Attribute, f.Value)})
	}
	if len(f.IDs) > 0 {
		of = append(of, bson.E{Key: "_id", Value: bson.D{{Key: "$in", Value: f.IDs}}})
	}
	statuses := f.Statuses
	if f.Attribute != "" || len(f.IDs) > 0 {
		if len(statuses) > 0 {
			of = append(of, bson.E{Key: "status", Value: bson.D{{Key: "$in", Value: statuses}}})
		}
		return append(bson.D{}, of...)
	}
	if len(statuses) == 0 {
		statuses = []saga.Status{saga.Running, saga.Compensating, saga.Completed, saga.Compensated, saga.Stuck}
	}
	var branches bson.A
	for _, status := range statuses {
		branches = append(branches, append(bson.D{{Key: "status", Value: status}}, of...))
	}
	return bson.D{{Key: "$or", Value: branches}}
}

// attribute is a search attribute as it is stored: the length of the name keeps names and values apart.
func attribute(name, value string) string { return fmt.Sprintf("%d:%s=%s", len(name), name, value) }

// Shapes implements saga.Store. It reads one saga for each shape.
func (s *Store) Shapes(ctx context.Context, k saga.Kind) (shapes []string, err error) {
	ctx = alone(ctx)
	seen := map[string]bool{}
	for _, status := range []saga.Status{saga.Running, saga.Compensating} {
		filter := bson.D{{Key: "status", Value: status}, {Key: "name", Value: k.Name}, {Key: "version", Value: k.Version}}
		next := options.FindOne().SetSort(bson.D{{Key: "shape", Value: 1}}).SetProjection(bson.D{{Key: "shape", Value: 1}})
		last := ""
		for {
			var d struct {
				Shape string `bson:"shape"`
			}
			err := s.sagas.FindOne(ctx, filter, next).Decode(&d)
			if errors.Is(err, mongo.ErrNoDocuments) || err == nil && len(filter) > 3 && d.Shape <= last {
				break
			}
			if err != nil {
				return nil, fmt.Errorf("sagamongo: shapes: %w", err)
			}
			if !seen[d.Shape] {
				seen[d.Shape] = true
				shapes = append(shapes, d.Shape)
			}
			last = d.Shape
			filter = append(filter[:3:3], bson.E{Key: "shape", Value: bson.D{{Key: "$gt", Value: d.Shape}}})
		}
	}
	return shapes, nil
}
