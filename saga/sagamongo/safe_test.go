package sagamongo_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/sillar-go/sillar/internal/mongofake"
	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/sagamongo"
)

// Whatever the client's defaults are, what was acknowledged is the majority's, and is read at the primary; and in the
// context of a transaction nothing becomes a part of it.
func TestWritesAreSafe(t *testing.T) {
	stored := bson.D{{Key: "_id", Value: "a"}, {Key: "status", Value: string(saga.Running)}, {Key: "steps", Value: "[]"},
		{Key: "audit", Value: "[]"}}
	db, commands := mongofake.Start(t, func(c mongofake.Command) bson.D {
		if c.Name == "find" {
			return mongofake.Found(stored)
		}
		return nil
	}, mongofake.Lax())
	store := sagamongo.Must(sagamongo.New(t.Context(), db, sagamongo.Config{}))
	session, err := db.Client().StartSession()
	if err != nil {
		t.Fatal(err)
	}
	defer session.EndSession(context.Background())
	if err := session.StartTransaction(); err != nil {
		t.Fatal(err)
	}
	ctx, kind := mongo.NewSessionContext(t.Context(), session), saga.Kind{Name: "x", Version: 1}
	_, _, err1 := store.Insert(ctx, saga.Record{ID: "a"})
	r, err2 := store.Get(ctx, "a")
	_, err3 := store.Claim(ctx, "node", []saga.Kind{kind}, 1)
	_, err4 := store.Signal(ctx, "a", "paid", func(saga.Record) ([]byte, error) { return nil, nil })
	_, err5 := store.List(ctx, saga.Filter{})
	_, err6 := store.Shapes(ctx, kind)
	err = errors.Join(err1, err2, err3, err4, err5, err6, store.Save(ctx, r), store.Heartbeat(ctx, "node", time.Minute),
		store.Leave(ctx, "node"))
	if err != nil {
		t.Fatal(err)
	}
	list := commands()
	if lapses := mongofake.Lapses(list); len(list) < 12 || lapses != nil {
		t.Errorf("of %d commands: %q", len(list), lapses)
	}
}
