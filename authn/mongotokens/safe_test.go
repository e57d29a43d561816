package mongotokens_test

import (
	"errors"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/authn/mongotokens"
	"github.com/sillar-go/sillar/internal/mongofake"
)

// Whatever the client's defaults are, a revocation that was acknowledged is the majority's, and is seen where it was
// written; and in the context of a transaction nothing becomes a part of it.
func TestWritesAreSafe(t *testing.T) {
	now := time.Now()
	login := bson.D{{Key: "_id", Value: "f"}, {Key: "subject", Value: "u"}, {Key: "grants", Value: bson.A{
		bson.D{{Key: "hash", Value: "h"}, {Key: "profile", Value: "{}"},
			{Key: "expires", Value: now.Add(time.Hour).UnixMicro()}}}}}
	db, commands := mongofake.Start(t, func(c mongofake.Command) bson.D {
		if c.Name == "find" {
			return mongofake.Found(login)
		}
		return nil
	}, mongofake.Lax())
	s := mongotokens.Must(mongotokens.New(db, mongotokens.Config{}))
	ctx := mongofake.Transaction(t, db)
	grant := authn.RefreshToken{Hash: "n", Family: "f", Subject: authn.Subject{ID: "u"}, ExpiresAt: now.Add(time.Hour)}
	_, err1 := s.Lookup(ctx, "h")
	_, err2 := s.Revoked(ctx, "id")
	_, err3 := s.Purge(ctx, now)
	_, err4 := s.Sessions(ctx, "u", now)
	err := errors.Join(err1, err2, err3, err4, s.Create(ctx, grant),
		s.Rotate(ctx, authn.Rotation{Old: "h", Next: grant, Now: now}),
		s.RevokeFamily(ctx, "f"), s.RevokeSubject(ctx, "u"), s.RevokeID(ctx, "id", now))
	if err != nil {
		t.Fatal(err)
	}
	list := commands()
	if lapses := mongofake.Lapses(list); len(list) < 12 || lapses != nil {
		t.Errorf("of %d commands: %q", len(list), lapses)
	}
}
