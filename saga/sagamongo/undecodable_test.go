package sagamongo_test

import (
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/sagamongo"
)

// A document that does not decode stops neither claims nor lists, and keeps what is stored.
func TestUndecodableSagaIsSetAside(t *testing.T) {
	for name, steps := range map[string]any{"no JSON": "broken", "another type": int32(7)} {
		t.Run(name, func(t *testing.T) {
			db, ctx := testenv.MongoDatabase(t, testenv.Mongo(t)), t.Context()
			s := sagamongo.Must(sagamongo.New(ctx, db, sagamongo.Config{}))
			for _, id := range []string{"a", "b"} {
				if _, _, err := s.Insert(ctx, saga.Record{ID: id, Name: "x", Version: 1, Status: saga.Running,
					State: []byte("1"), WakeAt: time.Now()}); err != nil {
					t.Fatal(err)
				}
			}
			sagas := db.Collection("sillar_sagas")
			set := bson.D{{Key: "$set", Value: bson.D{{Key: "steps", Value: steps}}}}
			if res, err := sagas.UpdateByID(ctx, "a", set); err != nil || res.ModifiedCount != 1 {
				t.Fatalf("%+v, %v", res, err)
			}
			claimed, err := s.Claim(ctx, "n", []saga.Kind{{Name: "x", Version: 1}}, 10)
			if err != nil || len(claimed) != 1 || claimed[0].ID != "b" {
				t.Errorf("claimed %v, %v, want b", claimed, err)
			}
			list, err := s.List(ctx, saga.Filter{Statuses: []saga.Status{saga.Stuck}})
			if err != nil || len(list) != 1 || list[0].ID != "a" || list[0].Cause == "" {
				t.Errorf("listed %v, %v, want a and the cause", list, err)
			}
			var stored struct{ Steps any }
			err = sagas.FindOne(ctx, bson.D{{Key: "_id", Value: "a"}}).Decode(&stored)
			if err != nil || stored.Steps != steps {
				t.Errorf("steps are %v, %v, want what was stored", stored.Steps, err)
			}
		})
	}
}
