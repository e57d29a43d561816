package sagamongo_test

import (
	"testing"
	"testing/synctest"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/saga/sagamongo"
	"github.com/sillar-go/sillar/saga/sagatest"
)

func TestClocksOfNodeAndServerMayDiffer(t *testing.T) {
	dsn := testenv.Mongo(t)
	synctest.Test(t, func(t *testing.T) {
		s := sagamongo.Must(sagamongo.New(t.Context(), testenv.MongoDatabase(t, dsn), sagamongo.Config{}))
		sagatest.Clocks(t, s)
	})
}
