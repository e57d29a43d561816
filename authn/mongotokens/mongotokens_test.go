package mongotokens_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.uber.org/goleak"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/authn/authntest"
	"github.com/sillar-go/sillar/authn/mongotokens"
	"github.com/sillar-go/sillar/internal/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T) (*mongo.Database, *mongotokens.Store) {
	t.Helper()
	db := testenv.MongoDatabase(t, testenv.Mongo(t))
	s := mongotokens.Must(mongotokens.New(db, mongotokens.Config{}))
	for range 2 {
		if err := s.EnsureIndexes(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return db, s
}

func TestTokenStoreConformance(t *testing.T) {
	authntest.RunTokens(t, func(t *testing.T) authn.TokenStore {
		_, s := open(t)
		return s
	})
}

// A login that is refreshed a hundred times is a small document, and the reuse of its first token is still found.
func TestLongLogin(t *testing.T) {
	db, s := open(t)
	ctx, now := t.Context(), time.Now().UTC()
	grant := func(n int) authn.RefreshToken {
		return authn.RefreshToken{Hash: fmt.Sprint("h", n), Family: "f", Subject: authn.Subject{ID: "u"}, CreatedAt: now,
			ExpiresAt: now.Add(24 * time.Hour)}
	}
	if err := s.Create(ctx, grant(0)); err != nil {
		t.Fatal(err)
	}
	rotate := func(old, next int, at time.Duration) error {
		return s.Rotate(ctx, authn.Rotation{Old: fmt.Sprint("h", old), Next: grant(next), Now: now.Add(at),
			Grace: 10 * time.Second})
	}
	for n := range 100 {
		if err := rotate(n, n+1, time.Duration(n)*time.Minute); err != nil {
			t.Fatal(n, err)
		}
	}
	var doc struct{ Grants []bson.Raw }
	if err := db.Collection("sillar_refresh_tokens").FindOne(ctx, bson.D{}).Decode(&doc); err != nil ||
		len(doc.Grants) > 3 {
		t.Errorf("the login holds %d grants, %v", len(doc.Grants), err)
	}
	if g, err := s.Lookup(ctx, "h0"); err != nil || g.UsedAt.IsZero() || g.Family != "f" || g.Subject.ID != "u" {
		t.Errorf("the first token: %+v, %v", g, err)
	}
	if err := rotate(0, 200, 100*time.Minute); !errors.Is(err, authn.ErrReused) {
		t.Errorf("the first token once more: %v", err)
	}
	for _, hash := range []string{"h0", "h50", "h100", "h200"} {
		if _, err := s.Lookup(ctx, hash); !errors.Is(err, authn.ErrRefresh) {
			t.Errorf("%s lives on: %v", hash, err)
		}
	}
	if n, err := db.Collection("sillar_used_tokens").CountDocuments(ctx, bson.D{}); n != 0 || err != nil {
		t.Errorf("%d old tokens are left behind, %v", n, err)
	}
}
