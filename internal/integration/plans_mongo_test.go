package integration

import (
	"fmt"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/authn/authntest"
	"github.com/sillar-go/sillar/authn/mongoapikeys"
	"github.com/sillar-go/sillar/authn/mongotokens"
	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/repository/eventstore"
	"github.com/sillar-go/sillar/repository/eventstore/eventstoretest"
	"github.com/sillar-go/sillar/repository/eventstore/mongoevents"
)

// Every command that the conformance suites make the stores in MongoDB send is answered by an index. Package sagamongo
// has the same test.
func TestCommandsUseIndexes(t *testing.T) {
	for _, c := range []struct {
		name string
		run  func(t *testing.T, db *mongo.Database, prefix func() string)
		// reads are parts of commands that read more than they return, by the reason.
		reads map[string]string
	}{
		{"events", func(t *testing.T, db *mongo.Database, prefix func() string) {
			eventstoretest.Run(t, func(t testing.TB) eventstore.Store {
				s, err := mongoevents.New(t.Context(), db, mongoevents.Config{Prefix: prefix()})
				must(t, err)
				return s
			}, eventstoretest.Features{})
		}, map[string]string{`"filter":{},"sort":{"_id":?},"limit":?`: "the last event, by the index of ids"}},
		{"tokens", func(t *testing.T, db *mongo.Database, prefix func() string) {
			authntest.RunTokens(t, func(t *testing.T) authn.TokenStore {
				s := mongotokens.Must(mongotokens.New(db, mongotokens.Config{Prefix: prefix()}))
				must(t, s.EnsureIndexes(t.Context()))
				return s
			})
		}, nil},
		{"api keys", func(t *testing.T, db *mongo.Database, prefix func() string) {
			authntest.RunAPIKeys(t, func(t *testing.T) authn.APIKeyStore {
				s := mongoapikeys.Must(mongoapikeys.New(db, mongoapikeys.Config{Prefix: prefix()}))
				must(t, s.EnsureIndexes(t.Context()))
				return s
			})
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
				t.Error(u)
			}
			if all < 3 {
				t.Errorf("only %d commands", all)
			}
			t.Logf("%d commands", all)
		})
	}
}
