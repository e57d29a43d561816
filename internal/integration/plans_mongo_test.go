package integration

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/authn/authntest"
	"github.com/sillar-go/sillar/authn/mongoapikeys"
	"github.com/sillar-go/sillar/authn/mongokeys"
	"github.com/sillar-go/sillar/authn/mongotokens"
	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/inbox/mongoinbox"
	"github.com/sillar-go/sillar/messaging/outbox/mongooutbox"
	"github.com/sillar-go/sillar/messaging/outbox/outboxtest"
	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/eventstore"
	"github.com/sillar-go/sillar/repository/eventstore/eventstoretest"
	"github.com/sillar-go/sillar/repository/eventstore/mongoevents"
	"github.com/sillar-go/sillar/repository/mongorepo"
	"github.com/sillar-go/sillar/repository/repositorytest"
)

// Every command that the conformance suites make the stores in MongoDB send is answered by an index. Package sagamongo
// has the same test.
func TestCommandsUseIndexes(t *testing.T) {
	for _, c := range []struct {
		name string
		run  func(t *testing.T, db *mongo.Database, prefix func() string)
		// reads are parts of commands that read more than they return, by the reason.
		reads map[string]string
		// by are parts of commands that compare the few documents which the index of the name has found.
		by map[string]string
	}{
		{"events", func(t *testing.T, db *mongo.Database, prefix func() string) {
			eventstoretest.Run(t, func(t testing.TB) eventstore.Store {
				s, err := mongoevents.New(t.Context(), db, mongoevents.Config{Prefix: prefix()})
				must(t, err)
				return s
			}, eventstoretest.Features{})
		}, map[string]string{`"filter":{},"sort":{"_id":?},"limit":?`: "the last event, by the index of ids"}, nil},
		{"tokens", func(t *testing.T, db *mongo.Database, prefix func() string) {
			authntest.RunTokens(t, func(t *testing.T) authn.TokenStore {
				s := mongotokens.Must(mongotokens.New(db, mongotokens.Config{Prefix: prefix()}))
				must(t, s.EnsureIndexes(t.Context()))
				return s
			})
		}, nil, nil},
		{"api keys", func(t *testing.T, db *mongo.Database, prefix func() string) {
			authntest.RunAPIKeys(t, func(t *testing.T) authn.APIKeyStore {
				s := mongoapikeys.Must(mongoapikeys.New(db, mongoapikeys.Config{Prefix: prefix()}))
				must(t, s.EnsureIndexes(t.Context()))
				return s
			})
		}, nil, nil},
		{"signing keys", func(t *testing.T, db *mongo.Database, prefix func() string) {
			authntest.RunKeys(t, func(*testing.T) (authn.KeyStore, func() authn.KeyStore) {
				cfg := mongokeys.Config{Secret: []byte(strings.Repeat("s", 32)), Name: prefix()}
				again := func() authn.KeyStore { return mongokeys.Must(mongokeys.New(db, cfg)) }
				return again(), again
			})
		}, nil, nil},
		{"outbox", mongoOutbox, nil, nil},
		{"inbox", mongoInbox, nil, map[string]string{
			`"_effects.kind"?,"_effects.id"?`:                "sillar_applied_once",
			`"_effects.kind"?,"_effects.created_at":{"$lt":`: "sillar_applied_when",
			`"_deleted":true,"_effects.0":`:                  "sillar_tombstones",
		}},
		{"repository", mongoRepository, map[string]string{
			`"$and":[{"sku":{"$eq"?}}]`: "the index of the field finds one document, which may be a tombstone",
		}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			plans := &testenv.MongoPlans{}
			db := testenv.MongoDatabase(t, testenv.Mongo(t), plans.Monitor())
			n := 0
			t.Run("suite", func(t *testing.T) {
				c.run(t, db, func() string { n++; return fmt.Sprintf("run%d_", n) })
			})
			unindexed, all := plans.Unindexed(t, db)
		next:
			for _, u := range unindexed {
				for part := range c.reads {
					if strings.Contains(u, part) {
						continue next
					}
				}
				for part, index := range c.by {
					if strings.Contains(u, part) && strings.Contains(u, index) {
						continue next
					}
				}
				t.Error(u)
			}
			if all < 2 {
				t.Errorf("only %d commands", all)
			}
			t.Logf("%d commands", all)
		})
	}
}

// kept is a document with an outbox and an inbox.
type kept struct {
	repository.Meta
	N int64
}

func mongoOutbox(t *testing.T, db *mongo.Database, prefix func() string) {
	outboxtest.Run(t, func(t *testing.T) outboxtest.Box {
		name := prefix() + "kept"
		r := mongorepo.Must(mongorepo.New[kept](t.Context(), db, mongorepo.Config{Collection: name}))
		o := mongooutbox.Must(mongooutbox.New(db, mongooutbox.Config{Source: "test", Collections: []string{name}}))
		must(t, o.EnsureIndexes(t.Context()))
		return outboxtest.Box{Store: o, Poll: 50 * time.Millisecond, Commit: func(ctx context.Context, fail error,
			events ...messaging.Envelope) error {
			change := func(ctx context.Context, x *kept) error {
				x.N++
				return errors.Join(o.PublishBatch(ctx, events), fail)
			}
			_, err := r.Update(ctx, events[0].Key, change)
			if errors.Is(err, repository.ErrNotFound) {
				_, err = r.Create(ctx, kept{Meta: repository.Meta{ID: events[0].Key}}, change)
			}
			return err
		}}
	})
}

func mongoInbox(t *testing.T, db *mongo.Database, prefix func() string) {
	name := prefix() + "kept"
	r := mongorepo.Must(mongorepo.New[kept](t.Context(), db, mongorepo.Config{Collection: name}))
	i := mongoinbox.Must(mongoinbox.New(db, mongoinbox.Config{Collections: []string{name, prefix() + "kept"},
		Keep: time.Hour}))
	must(t, i.EnsureIndexes(t.Context()))
	k, err := r.Create(t.Context(), kept{})
	must(t, err)
	for range 2 {
		_, err := i.Once(t.Context(), "c", "m", func(ctx context.Context) error {
			_, err := r.Update(ctx, k.ID, func(ctx context.Context, k *kept) error { k.N++; return i.Apply(ctx) })
			return err
		})
		must(t, err)
	}
	must(t, r.Delete(t.Context(), k.ID))
	must(t, i.Purge(t.Context()))
}

// mongoRepository does what repositories does for SQL.
func mongoRepository(t *testing.T, db *mongo.Database, prefix func() string) {
	r := mongorepo.Must(mongorepo.New[repositorytest.Widget](t.Context(), db, mongorepo.Config{
		Collection: prefix() + "widgets", Unique: repositorytest.Unique}))
	useRepository(t, r, nil)
}
