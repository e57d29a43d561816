package mongoevents_test

import (
	"context"
	"errors"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/sillar-go/sillar/internal/mongofake"
	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/eventstore"
	"github.com/sillar-go/sillar/repository/eventstore/mongoevents"
)

// Whatever the client's defaults are, what was acknowledged is the majority's and is read at the primary; and a
// snapshot is no part of a transaction, which a duplicate key would end.
func TestWritesAreSafe(t *testing.T) {
	db, commands := mongofake.Start(t, nil, mongofake.Lax())
	s := open(t, db, mongoevents.Config{})
	session, err := db.Client().StartSession()
	if err != nil {
		t.Fatal(err)
	}
	defer session.EndSession(context.Background())
	if err := session.StartTransaction(); err != nil {
		t.Fatal(err)
	}
	_, err1 := s.Append(t.Context(), "a", eventstore.AnyVersion, event)
	_, _, err2 := s.Read(t.Context(), "", 1)
	_, err3 := s.Lag(t.Context(), "")
	for _, err4 := range s.LoadFrom(t.Context(), "a", 0) {
		err3 = errors.Join(err3, err4)
	}
	err5 := s.SaveSnapshot(mongo.NewSessionContext(t.Context(), session), eventstore.Snapshot{Stream: "a", Version: 1})
	if err := errors.Join(err1, err2, err3, err5, s.MoveCheckpoint(t.Context(), "p", "", "1")); err != nil {
		t.Fatal(err)
	}
	list := commands()
	if lapses := mongofake.Lapses(list); len(list) < 8 || lapses != nil {
		t.Errorf("of %d commands: %q", len(list), lapses)
	}
}

// A move to where the checkpoint is holds it there until the commit, which takes a write: to MongoDB an update that
// changes nothing is none, and no conflict of transactions.
func TestHeldCheckpoint(t *testing.T) {
	db, commands := mongofake.Start(t, nil)
	s := open(t, db, mongoevents.Config{})
	commands()
	if err := s.MoveCheckpoint(t.Context(), "p", "7", "7"); err != nil {
		t.Fatal(err)
	}
	list := commands()
	if len(list) != 1 || list[0].Name != "update" || list[0].Lookup("updates", "0", "u", "$inc",
		"moves") != `{"$numberInt":"1"}` {
		t.Errorf("%v", list)
	}
}

// MongoDB quotes the values of a duplicate key: a stream that is named like an index is no event that is there twice.
func TestDuplicateKeys(t *testing.T) {
	for message, unique := range map[string]bool{
		`E11000 duplicate key error collection: fake.sillar_events index: event_id dup key: { events.id: "1"
			}`: true,
		`E11000 duplicate key error collection: fake.sillar_events index: stream_first dup key: { stream: "event_id",
			first: 1 }`: false,
		`E11000 duplicate key error collection: fake.sillar_events index: _id_ dup key: { _id: 1
			}`: false,
	} {
		inserts := 0
		db, _ := mongofake.Start(t, func(c mongofake.Command) bson.D {
			switch c.Name {
			case "insert":
				if inserts++; inserts == 1 {
					return bson.D{{Key: "ok", Value: 1.0}, {Key: "n", Value: int32(0)}, {Key: "writeErrors", Value: bson.A{
						bson.D{{Key: "index", Value: int32(0)}, {Key: "code", Value: int32(11000)}, {Key: "errmsg", Value: message}}}}}
				}
			case "find":
				if inserts > 0 {
					return mongofake.Found(bson.D{{Key: "_id", Value: int64(1)}, {Key: "first", Value: int64(1)},
						{Key: "count", Value: int64(1)}})
				}
			}
			return nil
		})
		_, err := open(t, db, mongoevents.Config{}).Append(t.Context(), "event_id", eventstore.NoStream, event)
		if errors.Is(err, repository.ErrUnique) != unique || errors.Is(err, repository.ErrConflict) == unique {
			t.Errorf("%s: %v", message, err)
		}
	}
}
