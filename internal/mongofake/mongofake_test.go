package mongofake_test

import (
	"errors"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"
	"go.uber.org/goleak"

	"github.com/sillar-go/sillar/internal/mongofake"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The driver takes it for a replica set: writes go to the primary, reads where they are asked for, and answers are the
// test's.
func TestDriverTakesItForAReplicaSet(t *testing.T) {
	db, commands := mongofake.Start(t, func(c mongofake.Command) bson.D {
		switch {
		case c.Name == "find" && c.Secondary:
			return mongofake.Found(bson.D{{Key: "_id", Value: "a"}})
		case c.Name == "delete":
			return mongofake.Error(13, "Unauthorized", "no")
		}
		return nil
	}, options.Client().SetReadPreference(readpref.Secondary()))
	c := db.Collection("c")
	if _, err := c.InsertMany(t.Context(), []any{bson.D{{Key: "_id", Value: 1}},
		bson.D{{Key: "_id", Value: 2}}}); err != nil {
		t.Fatal(err)
	}
	var doc struct {
		ID string `bson:"_id"`
	}
	if err := c.FindOne(t.Context(), bson.D{}).Decode(&doc); err != nil || doc.ID != "a" {
		t.Errorf("found %q, %v", doc.ID, err)
	}
	var refused mongo.CommandError
	if _, err := c.DeleteOne(t.Context(), bson.D{}); !errors.As(err, &refused) || refused.Code != 13 {
		t.Errorf("a refused delete: %v", err)
	}
	got := commands()
	if len(got) != 3 || got[0].Name != "insert" || got[0].Secondary || got[0].Lookup("documents", "1",
		"_id") != `{"$numberInt":"2"}` ||
		got[1].Name != "find" || !got[1].Secondary || got[1].Collection != "c" {
		t.Errorf("%v", got)
	}
}
