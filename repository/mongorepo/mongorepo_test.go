package mongorepo_test

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

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/mongorepo"
	"github.com/sillar-go/sillar/repository/repositorytest"
)

type widget = repositorytest.Widget

func open(t testing.TB) (*mongo.Database, *mongorepo.Repo[widget]) {
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
	r, err := mongorepo.New[widget](t.Context(), db, mongorepo.Config{Collection: "widgets", Unique: repositorytest.Unique})
	if err != nil {
		t.Fatal(err)
	}
	return db, r
}

func TestConformance(t *testing.T) {
	repositorytest.Run(t, func(t testing.TB) repository.Repository[widget] {
		_, r := open(t)
		return r
	}, repositorytest.Features{Precision: time.Millisecond})
}

// What a write's function collects is in the document, in order, and a delete keeps it in a tombstone.
func TestEffects(t *testing.T) {
	db, r := open(t)
	tell := func(topic string) repository.Then[widget] {
		return func(ctx context.Context, w *widget) error {
			return repository.Collect(ctx, repository.Effect{ID: topic, Kind: "message", Topic: topic, Key: w.ID, Body: []byte(topic), CreatedAt: time.Now()})
		}
	}
	w, err := r.Create(t.Context(), widget{SKU: "a"}, tell("created"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Update(t.Context(), w.ID, tell("updated")); err != nil {
		t.Fatal(err)
	}
	boom := errors.New("boom")
	if _, err := r.Update(t.Context(), w.ID, func(ctx context.Context, w *widget) error {
		return errors.Join(tell("lost")(ctx, w), boom)
	}); !errors.Is(err, boom) {
		t.Fatal(err)
	}
	if err := r.Delete(t.Context(), w.ID, tell("deleted")); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Get(t.Context(), w.ID); !errors.Is(err, repository.ErrNotFound) {
		t.Fatalf("a tombstone is read as an entity: %v", err)
	}
	var doc struct {
		Effects []repository.Effect `bson:"_effects"`
		Deleted bool                `bson:"_deleted"`
		SKU     *string             `bson:"sku"`
	}
	if err := db.Collection("widgets").FindOne(t.Context(), bson.D{{Key: "_id", Value: w.ID}}).Decode(&doc); err != nil {
		t.Fatal(err)
	}
	var topics []string
	for _, e := range doc.Effects {
		topics = append(topics, e.Topic)
	}
	if got := strings.Join(topics, ","); got != "created,updated,deleted" || !doc.Deleted || doc.SKU != nil {
		t.Fatalf("effects %q, deleted %v, sku left: %v", got, doc.Deleted, doc.SKU != nil)
	}
	if err := repository.Collect(t.Context(), repository.Effect{}); !errors.Is(err, repository.ErrNoEffects) {
		t.Fatalf("Collect outside a write: %v", err)
	}
}
