package mongooutbox_test

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.uber.org/goleak"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/outbox/mongooutbox"
	"github.com/sillar-go/sillar/messaging/outbox/outboxtest"
	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/mongorepo"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type thing struct {
	repository.Meta
	N int64
}

func open(t *testing.T) (*mongo.Database, *mongorepo.Repo[thing], *mongooutbox.Outbox) {
	t.Helper()
	dsn := testenv.Mongo(t)
	client, err := mongo.Connect(options.Client().ApplyURI(dsn))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Disconnect(context.Background()) })
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	db := client.Database(strings.TrimPrefix(u.Path, "/"))
	r, err := mongorepo.New[thing](t.Context(), db, mongorepo.Config{Collection: "things"})
	if err != nil {
		t.Fatal(err)
	}
	o := mongooutbox.Must(db, mongooutbox.Config{Source: "test", Collections: []string{"others", "things"}})
	if err := o.EnsureIndexes(t.Context()); err != nil {
		t.Fatal(err)
	}
	return db, r, o
}

func TestConformance(t *testing.T) {
	outboxtest.Run(t, func(t *testing.T) outboxtest.Box {
		_, r, o := open(t)
		return outboxtest.Box{Store: o, Poll: 50 * time.Millisecond, Commit: func(ctx context.Context, fail error, events ...messaging.Envelope) error {
			change := func(ctx context.Context, x *thing) error {
				x.N++
				return errors.Join(o.PublishBatch(ctx, events), fail)
			}
			_, err := r.Update(ctx, events[0].Key, change)
			if errors.Is(err, repository.ErrNotFound) {
				_, err = r.Create(ctx, thing{Meta: repository.Meta{ID: events[0].Key}}, change)
			}
			return err
		}}
	})
}

func TestPublishOutsideAWrite(t *testing.T) {
	_, _, o := open(t)
	if err := o.Publish(t.Context(), "a", 1); !errors.Is(err, repository.ErrNoEffects) {
		t.Fatal(err)
	}
}

// A tombstone goes when its events are told, and a document that is no tombstone stays; effects of other kinds are left.
func TestTombstones(t *testing.T) {
	db, r, o := open(t)
	ctx := t.Context()
	tell := func(ctx context.Context, x *thing) error { return o.Publish(ctx, "t", x.ID) }
	other := func(ctx context.Context, x *thing) error {
		return repository.Collect(ctx, repository.Effect{ID: "o", Kind: "other", Topic: "t"})
	}
	gone, err := r.Create(ctx, thing{}, tell)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Delete(ctx, gone.ID, tell); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Create(ctx, thing{}, tell, other); err != nil {
		t.Fatal(err)
	}
	entries, err := o.Claim(ctx, "me", 10, time.Minute)
	if err != nil || len(entries) != 3 {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	if err := o.Done(ctx, "me", entries); err != nil {
		t.Fatal(err)
	}
	var docs []struct {
		Effects []repository.Effect `bson:"_effects"`
	}
	cur, err := db.Collection("things").Find(ctx, bson.D{})
	if err != nil {
		t.Fatal(err)
	}
	if err := cur.All(ctx, &docs); err != nil || len(docs) != 1 || len(docs[0].Effects) != 1 || docs[0].Effects[0].Kind != "other" {
		t.Fatalf("%+v, %v", docs, err)
	}
	if n, _, err := o.Pending(ctx); n != 0 || err != nil {
		t.Fatalf("%d pending, %v", n, err)
	}
}
