package mongooutbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readconcern"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"

	"github.com/sillar-go/sillar/internal/backoff"
	"github.com/sillar-go/sillar/internal/changestream"
	"github.com/sillar-go/sillar/messaging/outbox"
	"github.com/sillar-go/sillar/repository/driver"
)

// document is what a relay reads of one.
type document struct {
	ID      bson.RawValue   `bson:"_id"`
	Effects []driver.Effect `bson:"_effects"`
	Relay   struct {
		Attempts int       `bson:"attempts"`
		Until    time.Time `bson:"until"`
	} `bson:"_relay"`
}

// free selects documents with events that no relay has on lease: held ones whose pause has ended, or the others.
func free(now time.Time, held bool, more ...bson.E) bson.D {
	mark := bson.D{{Key: "$ne", Value: true}}
	if held {
		mark = bson.D{{Key: "$eq", Value: true}}
	}
	return append(bson.D{{Key: effects + ".kind", Value: Kind}, {Key: relay + ".held", Value: mark},
		{Key: relay + ".until", Value: bson.D{{Key: "$not", Value: bson.D{{Key: "$gt", Value: now}}}}}}, more...)
}

// Claim implements outbox.Store. A lease is on a document: it covers what the document held at the time, and keeps
// others from what is added.
func (o *Outbox) Claim(ctx context.Context, owner string, limit int, lease time.Duration) ([]outbox.Entry, error) {
	return o.claimAll(ctx, false, owner, limit, lease)
}

// ClaimHeld implements outbox.Store.
func (o *Outbox) ClaimHeld(ctx context.Context, owner string, limit int, lease time.Duration) ([]outbox.Entry, error) {
	return o.claimAll(ctx, true, owner, limit, lease)
}

func (o *Outbox) claimAll(ctx context.Context, held bool, owner string, limit int,
	lease time.Duration) (entries []outbox.Entry, err error) {
	for _, name := range o.cfg.Collections {
		if len(entries) >= limit {
			break
		}
		found, err := o.claim(ctx, name, held, owner, limit-len(entries), lease)
		entries = append(entries, found...)
		if err != nil {
			return nil, fmt.Errorf("mongooutbox: claim in %s: %w", name,
				errors.Join(err, o.Release(context.WithoutCancel(ctx), owner, entries)))
		}
	}
	return entries, nil
}

func (o *Outbox) claim(ctx context.Context, name string, held bool, owner string, limit int,
	lease time.Duration) (entries []outbox.Entry, err error) {
	c := o.collection(name)
	cur, err := c.Find(ctx, free(time.Now(), held), options.Find().SetProjection(bson.D{{Key: "_id",
		Value: 1}}).SetLimit(int64(limit)))
	if err != nil {
		return nil, err
	}
	var candidates []struct {
		ID bson.RawValue `bson:"_id"`
	}
	if err := cur.All(ctx, &candidates); err != nil {
		return nil, err
	}
	for _, cand := range candidates {
		if len(entries) >= limit {
			break
		}
		now := time.Now()
		var d document
		err := c.FindOneAndUpdate(ctx, free(now, held, bson.E{Key: "_id", Value: cand.ID}),
			set("owner", owner, "until", now.Add(lease), "held", false),
			options.FindOneAndUpdate().SetReturnDocument(options.After).SetProjection(bson.D{{Key: effects, Value: 1},
				{Key: relay, Value: 1}})).Decode(&d)
		if errors.Is(err, mongo.ErrNoDocuments) { // another relay was faster
			continue
		}
		if err != nil {
			return entries, err
		}
		ref, err := reference(name, d.ID, "")
		if err != nil {
			return entries, err
		}
		n := 0
		for _, f := range d.Effects {
			if f.Kind == Kind && len(entries) < limit {
				entries = append(entries, outbox.Entry{Envelope: envelope(f), Ref: ref, Attempts: d.Relay.Attempts})
				n++
			}
		}
		if _, err := c.UpdateOne(ctx, leased(d.ID, owner), set("claimed", n)); err != nil {
			return entries, err
		}
	}
	return entries, nil
}

// set makes an update of fields of relay.
func set(pairs ...any) bson.D {
	var fields bson.D
	for i := 0; i < len(pairs); i += 2 {
		field := relay + "." + pairs[i].(string)
		fields = append(fields, bson.E{Key: field, Value: pairs[i+1]}) //nolint:gosec // pairs are pairs
	}
	return bson.D{{Key: "$set", Value: fields}}
}

func leased(id any, owner string, more ...bson.E) bson.D {
	return append(bson.D{{Key: "_id", Value: id}, {Key: relay + ".owner", Value: owner}}, more...)
}

// reference names a document, by its collection and its id, or one of its events, as extended JSON.
func reference(collection string, id bson.RawValue, event string) (string, error) {
	ref := bson.D{{Key: "c", Value: collection}, {Key: "id", Value: id}}
	if event != "" {
		ref = append(ref, bson.E{Key: "e", Value: event})
	}
	b, err := bson.MarshalExtJSON(ref, true, false)
	return string(b), err
}

func parseReference(ref string) (t target, err error) {
	err = bson.UnmarshalExtJSON([]byte(ref), true, &t)
	return t, err
}

type target struct {
	Collection string        `bson:"c"`
	ID         bson.RawValue `bson:"id"`
	Event      string        `bson:"e"` // "" for the document
}

// each calls f for each document of the entries, with the ids of its entries.
func each(entries []outbox.Entry, f func(t target, ids []string) error) error {
	byRef, order := map[string][]string{}, []string(nil)
	for _, e := range entries {
		if byRef[e.Ref] == nil {
			order = append(order, e.Ref)
		}
		byRef[e.Ref] = append(byRef[e.Ref], e.ID)
	}
	var errs []error
	for _, ref := range order {
		t, err := parseReference(ref)
		if err == nil {
			err = f(t, byRef[ref])
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("mongooutbox: settle: %w", err))
		}
	}
	return errors.Join(errs...)
}

// settled counts entries as settled; with the last one the lease ends, unless the document is held back.
func (o *Outbox) settled(ctx context.Context, t target, owner string, n int, change ...bson.E) error {
	c := o.collection(t.Collection)
	change = append(change, bson.E{Key: "$inc", Value: bson.D{{Key: relay + ".claimed", Value: -n}}})
	res, err := c.UpdateOne(ctx, leased(t.ID, owner), bson.D(change))
	if err != nil || res.MatchedCount == 0 {
		return err
	}
	_, err = c.UpdateOne(ctx, leased(t.ID, owner, bson.E{Key: relay + ".claimed", Value: bson.D{{Key: "$lte", Value: 0}}},
		bson.E{Key: relay + ".held", Value: false}), set("owner", "", "until", time.Time{}))
	return err
}

// Done implements outbox.Store. A tombstone without events is removed.
func (o *Outbox) Done(ctx context.Context, owner string, entries []outbox.Entry) error {
	return each(entries, func(t target, ids []string) error {
		err := o.settled(ctx, t, owner, len(ids),
			bson.E{Key: "$pull", Value: bson.D{{Key: effects, Value: bson.D{{Key: "kind", Value: Kind},
				{Key: "id", Value: bson.D{{Key: "$in", Value: ids}}}}}}},
			bson.E{Key: "$set", Value: bson.D{{Key: relay + ".attempts", Value: 0}}})
		if err != nil {
			return err
		}
		return o.removeTombstone(ctx, t)
	})
}

// removeTombstone removes a document that was deleted and has no effects any more.
func (o *Outbox) removeTombstone(ctx context.Context, t target) error {
	_, err := o.collection(t.Collection).DeleteOne(ctx, bson.D{{Key: "_id", Value: t.ID}, {Key: deleted, Value: true},
		{Key: effects + ".0", Value: bson.D{{Key: "$exists", Value: false}}}})
	return err
}

// Release implements outbox.Store.
func (o *Outbox) Release(ctx context.Context, owner string, entries []outbox.Entry) error {
	return each(entries, func(t target, ids []string) error { return o.settled(ctx, t, owner, len(ids)) })
}

// Hold implements outbox.Store. It holds the document, whatever StopsKey says; the owner can still settle what else it
// has of it.
func (o *Outbox) Hold(ctx context.Context, owner string, entries []outbox.Entry, h outbox.Hold) error {
	counted := 1
	if h.Uncounted {
		counted = 0
	}
	return each(entries, func(t target, ids []string) error {
		_, err := o.collection(t.Collection).UpdateOne(ctx, leased(t.ID, owner),
			append(set("until", time.Now().Add(h.Pause), "held", true),
				bson.E{Key: "$inc", Value: bson.D{{Key: relay + ".claimed", Value: -len(ids)},
					{Key: relay + ".attempts", Value: counted}}}))
		return err
	})
}

// Pending implements outbox.Store.
func (o *Outbox) Pending(ctx context.Context) (count int64, oldest time.Time, err error) {
	kind := bson.D{{Key: "$match", Value: bson.D{{Key: effects + ".kind", Value: Kind}}}}
	for _, name := range o.cfg.Collections {
		cur, err := o.collection(name).Aggregate(ctx, bson.A{kind, bson.D{{Key: "$unwind", Value: "$" + effects}}, kind,
			bson.D{{Key: "$group", Value: bson.D{{Key: "_id", Value: nil}, {Key: "n", Value: bson.D{{Key: "$sum", Value: 1}}},
				{Key: "oldest", Value: bson.D{{Key: "$min", Value: "$" + effects + ".created_at"}}}}}}})
		var sums []struct {
			N      int64     `bson:"n"`
			Oldest time.Time `bson:"oldest"`
		}
		if err == nil {
			err = cur.All(ctx, &sums)
		}
		if err != nil {
			return 0, time.Time{}, fmt.Errorf("mongooutbox: count in %s: %w", name, err)
		}
		for _, s := range sums {
			count += s.N
			if oldest.IsZero() || s.Oldest.Before(oldest) {
				oldest = s.Oldest.UTC()
			}
		}
	}
	return count, oldest, nil
}

// Wake implements outbox.Store, by a change stream where the server has them.
func (o *Outbox) Wake(ctx context.Context) <-chan struct{} {
	c := make(chan struct{}, 1)
	go func() {
		pause := backoff.Exponential(time.Second, 30*time.Second)
		for attempt := 1; ctx.Err() == nil; attempt++ {
			opened, err := changestream.Follow(ctx, o.watch, func([]bson.Raw) {
				select {
				case c <- struct{}{}:
				default:
				}
			})
			switch {
			case ctx.Err() != nil:
				return
			case changestream.Unsupported(err):
				o.cfg.Logger.InfoContext(ctx, "mongooutbox: the server has no change streams, so the relay polls", "collections",
					o.cfg.Collections)
				return
			case opened:
				attempt = 1
				o.cfg.Logger.InfoContext(ctx, "mongooutbox: the change stream broke; until it is open again the relay polls",
					"collections", o.cfg.Collections, "error", err)
			case attempt == 3: // no failover takes as long
				o.cfg.Logger.InfoContext(ctx, "mongooutbox: no change stream can be opened; until one can the relay polls",
					"collections", o.cfg.Collections, "error", err)
			}
			_ = backoff.Sleep(ctx, pause.Delay(attempt))
		}
	}()
	return c
}

// watch opens a stream of the writes that may have added events.
func (o *Outbox) watch(ctx context.Context) (*mongo.ChangeStream, error) {
	match := bson.D{{Key: "$match", Value: bson.D{{Key: "ns.coll", Value: bson.D{{Key: "$in", Value: o.cfg.Collections}}},
		{Key: "operationType", Value: bson.D{{Key: "$in", Value: bson.A{"insert", "update", "replace"}}}}}}}
	db := o.db.Client().Database(o.db.Name(),
		options.Database().SetReadConcern(readconcern.Majority()).SetReadPreference(readpref.Primary()))
	return db.Watch(ctx, mongo.Pipeline{match, {{Key: "$project", Value: bson.D{{Key: "_id", Value: 1}}}}})
}
