package mongooutbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/sillar-go/sillar/messaging/outbox"
)

var _ outbox.HeldStore = (*Outbox)(nil)

// heldDocuments selects documents that are held and that no relay has on lease, for a claim ends the hold.
func heldDocuments(more ...bson.E) bson.D {
	return append(bson.D{{Key: effects + ".kind", Value: Kind}, {Key: relay + ".held", Value: true}}, more...)
}

// ListHeld implements outbox.HeldStore. A document is held as a whole: all of its events are listed, each with a Ref of
// its own, in the order in which they are published. They have no headers and no body.
func (o *Outbox) ListHeld(ctx context.Context, limit int) (held []outbox.Held, err error) {
	for _, name := range o.cfg.Collections {
		found, err := o.listHeld(ctx, name, limit)
		if err != nil {
			return nil, fmt.Errorf("mongooutbox: list held events in %s: %w", name, err)
		}
		held = append(held, found...)
	}
	slices.SortStableFunc(held, func(a, b outbox.Held) int { return a.Until.Compare(b.Until) })
	return held[:min(max(limit, 0), len(held))], nil
}

func (o *Outbox) listHeld(ctx context.Context, name string, limit int) (held []outbox.Held, err error) {
	cur, err := o.collection(name).Find(ctx, heldDocuments(), options.Find().SetLimit(int64(max(limit, 1))).
		SetSort(bson.D{{Key: relay + ".until", Value: 1}}).
		SetProjection(bson.D{{Key: effects, Value: 1}, {Key: relay, Value: 1}}))
	if err != nil {
		return nil, err
	}
	var docs []document
	if err := cur.All(ctx, &docs); err != nil {
		return nil, err
	}
	for _, d := range docs {
		for _, f := range d.Effects {
			if f.Kind != Kind {
				continue
			}
			ref, err := reference(name, d.ID, f.ID)
			if err != nil {
				return nil, err
			}
			e := envelope(f)
			e.Headers, e.Body = nil, nil
			held = append(held, outbox.Held{Entry: outbox.Entry{Envelope: e, Ref: ref, Attempts: d.Relay.Attempts},
				Until: d.Relay.Until.UTC(), StopsKey: true})
		}
	}
	return held, nil
}

// RetryHeld implements outbox.HeldStore. It ends the pause of whole documents. Without refs it returns their number.
func (o *Outbox) RetryHeld(ctx context.Context, refs ...string) (n int64, err error) {
	now := set("until", time.Time{})
	if len(refs) > 0 {
		return o.eachHeld(ctx, refs, func(target) any { return now })
	}
	for _, name := range o.cfg.Collections {
		res, err := o.collection(name).UpdateMany(ctx, heldDocuments(), now)
		if err != nil {
			return n, fmt.Errorf("mongooutbox: retry held events in %s: %w", name, err)
		}
		n += res.MatchedCount
	}
	return n, nil
}

// SkipHeld implements outbox.HeldStore. The events that are named go behind the other ones of their documents, whose
// pause ends: those that wait now are published before.
func (o *Outbox) SkipHeld(ctx context.Context, refs ...string) (int64, error) {
	return o.eachHeld(ctx, refs, func(t target) any {
		named := bson.D{{Key: "$and", Value: bson.A{bson.D{{Key: "$eq", Value: bson.A{"$$e.kind", Kind}}},
			bson.D{{Key: "$eq", Value: bson.A{"$$e.id", bson.D{{Key: "$literal", Value: t.Event}}}}}}}}
		pick := func(cond any) bson.D {
			return bson.D{{Key: "$filter", Value: bson.D{{Key: "input", Value: "$" + effects}, {Key: "as", Value: "e"},
				{Key: "cond", Value: cond}}}}
		}
		return bson.A{bson.D{{Key: "$set", Value: bson.D{
			{Key: effects, Value: bson.D{{Key: "$concatArrays", Value: bson.A{pick(bson.D{{Key: "$not", Value: bson.A{named}}}),
				pick(named)}}}},
			{Key: relay + ".until", Value: time.Time{}},
		}}}}
	})
}

// DropHeld implements outbox.HeldStore. What is left of the document is tried at once.
func (o *Outbox) DropHeld(ctx context.Context, refs ...string) (int64, error) {
	n, err := o.eachHeld(ctx, refs, func(t target) any {
		named := bson.D{{Key: "kind", Value: Kind}, {Key: "id", Value: t.Event}}
		return append(set("held", false, "until", time.Time{}, "attempts", 0),
			bson.E{Key: "$pull", Value: bson.D{{Key: effects, Value: named}}})
	})
	if err != nil {
		return n, err
	}
	for _, ref := range refs {
		t, err := parseReference(ref)
		if err == nil {
			err = o.removeTombstone(ctx, t)
		}
		if err != nil {
			return n, fmt.Errorf("mongooutbox: drop held events: %w", err)
		}
	}
	return n, nil
}

// eachHeld updates the held documents of events, and returns how many of the events were held.
func (o *Outbox) eachHeld(ctx context.Context, refs []string, update func(target) any) (n int64, err error) {
	var errs []error
	seen := map[string]bool{} // an event that is named twice counts once
	held := map[string]bool{} // documents that this call has found held: DropHeld ends the hold with their first event
	for _, ref := range refs {
		if seen[ref] {
			continue
		}
		seen[ref] = true
		t, err := parseReference(ref)
		if err == nil && (t.Event == "" || !slices.Contains(o.cfg.Collections, t.Collection)) {
			err = errors.New("it names no event of this outbox")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("mongooutbox: held event %q: %w", ref, err))
			continue
		}
		doc := t.Collection + "/" + t.ID.String()
		filter := bson.D{{Key: "_id", Value: t.ID}, {Key: effects, Value: bson.D{{Key: "$elemMatch",
			Value: bson.D{{Key: "kind", Value: Kind}, {Key: "id", Value: t.Event}}}}}}
		if !held[doc] {
			filter = heldDocuments(filter...)
		} else { // unless a relay has claimed it since
			filter = append(filter, bson.E{Key: relay + ".until",
				Value: bson.D{{Key: "$not", Value: bson.D{{Key: "$gt", Value: time.Now()}}}}})
		}
		res, err := o.collection(t.Collection).UpdateOne(ctx, filter, update(t))
		if err != nil {
			errs = append(errs, fmt.Errorf("mongooutbox: held event %q: %w", ref, err))
			continue
		}
		held[doc] = held[doc] || res.MatchedCount > 0
		n += res.MatchedCount
	}
	return n, errors.Join(errs...)
}
