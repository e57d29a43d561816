package sagasql_test

import (
	"testing"
	"testing/synctest"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/repository/sqldb"
	"github.com/sillar-go/sillar/saga/sagasql"
	"github.com/sillar-go/sillar/saga/sagatest"
)

func TestClocksOfNodeAndDatabaseMayDiffer(t *testing.T) {
	dsn := testenv.Postgres(t)
	synctest.Test(t, func(t *testing.T) {
		db := sqldb.Must(sqldb.Open(t.Context(), dsn, sqldb.Config{}))
		defer db.Close()
		s := sagasql.Must(sagasql.New(db, sagasql.Config{}))
		if err := s.EnsureSchema(t.Context()); err != nil {
			t.Fatal(err)
		}
		sagatest.Clocks(t, s)
	})
}
