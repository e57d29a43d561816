package sagamongo_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/sagamongo"
	"github.com/sillar-go/sillar/saga/sagatest"
)

// Every command that the conformance suite makes the store send is answered by an index.
func TestCommandsUseIndexes(t *testing.T) {
	t.Parallel()
	plans := &testenv.MongoPlans{}
	db := testenv.MongoDatabase(t, testenv.Mongo(t), plans.Monitor())
	n := 0
	sagatest.Run(t, func(t testing.TB) saga.Store {
		n++
		return sagamongo.Must(sagamongo.New(t.Context(), db, sagamongo.Config{Prefix: fmt.Sprintf("run%d_", n)}))
	}, sagatest.Features{})
	unindexed, all := plans.Unindexed(t, db)
	for _, u := range unindexed {
		// The condition beside the bounds leaves out what began at the same time as the end of the page before, and the
		// sagas of an attribute, or those by id, that have another name or status.
		if !strings.Contains(u, `"_id":{"$gt"?}`) && !strings.Contains(u, `"attributes"?`) {
			t.Error(u)
		}
	}
	if all < 30 {
		t.Errorf("only %d commands", all)
	}
	t.Logf("%d commands", all)
}
