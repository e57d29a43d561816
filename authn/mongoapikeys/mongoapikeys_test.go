package mongoapikeys_test

import (
	"errors"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.uber.org/goleak"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/authn/authntest"
	"github.com/sillar-go/sillar/authn/mongoapikeys"
	"github.com/sillar-go/sillar/internal/mongofake"
	"github.com/sillar-go/sillar/internal/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	authntest.RunAPIKeys(t, func(t *testing.T) authn.APIKeyStore {
		s := mongoapikeys.Must(mongoapikeys.New(testenv.MongoDatabase(t, testenv.Mongo(t)), mongoapikeys.Config{}))
		for range 2 {
			if err := s.EnsureIndexes(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		return s
	})
}

// Whatever the defaults of the client are, writes are acknowledged by the majority and reads go to the primary, and no
// call becomes a part of a transaction.
func TestWritesAreSafe(t *testing.T) {
	key := bson.D{{Key: "_id", Value: "a"}, {Key: "subject", Value: "u"}, {Key: "profile", Value: "{}"},
		{Key: "hash", Value: "h"}}
	db, commands := mongofake.Start(t, func(c mongofake.Command) bson.D {
		if c.Name == "find" {
			return mongofake.Found(key)
		}
		return nil
	}, mongofake.Lax())
	s := mongoapikeys.Must(mongoapikeys.New(db, mongoapikeys.Config{}))
	ctx := mongofake.Transaction(t, db)
	_, err1 := s.Lookup(ctx, "a")
	_, err2 := s.List(ctx, "u")
	_, err3 := s.Purge(ctx, time.Now())
	err := errors.Join(err1, err2, err3, s.Create(ctx, authn.APIKey{ID: "b"}),
		s.Rotate(ctx, authn.APIKeyRotation{ID: "a", Old: "h", Next: "n"}), s.Delete(ctx, "a"), s.DeleteSubject(ctx, "u"))
	if err != nil {
		t.Fatal(err)
	}
	list := commands()
	if lapses := mongofake.Lapses(list); len(list) < 7 || lapses != nil {
		t.Errorf("of %d commands: %q", len(list), lapses)
	}
}
