package sagasql_test

import (
	"context"
	"testing"

	"go.uber.org/goleak"

	"github.com/sillar-go/sillar/internal/killtest"
	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/repository/sqldb"
	_ "github.com/sillar-go/sillar/repository/sqldb/sqlite"
	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/sagasql"
	"github.com/sillar-go/sillar/saga/sagatest"
)

func TestMain(m *testing.M) { killtest.Main(); goleak.VerifyTestMain(m) }

func open(t testing.TB, dsn string, change ...func(*sagasql.Config)) (*sqldb.DB, *sagasql.Store) {
	t.Helper()
	db, err := sqldb.Open(t.Context(), dsn, sqldb.Config{Synchronous: "NORMAL"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	cfg := sagasql.Config{Prefix: "own_"}
	for _, c := range change {
		c(&cfg)
	}
	s := sagasql.Must(sagasql.New(db, cfg))
	if err := s.EnsureSchema(t.Context()); err != nil {
		t.Fatal(err)
	}
	return db, s
}

func TestConformance(t *testing.T) {
	for name, dsn := range testenv.SQL() {
		for what, config := range map[string]func(*sagasql.Config){"": func(*sagasql.Config) {}, ", history": history} {
			t.Run(name+what, func(t *testing.T) {
				t.Parallel()
				dbs := map[saga.Store]*sqldb.DB{}
				sagatest.Run(t, func(t testing.TB) saga.Store {
					db, s := open(t, dsn(t), config)
					dbs[s] = db
					return s
				}, sagatest.Features{InTx: func(ctx context.Context, s saga.Store, fn func(context.Context) error) error {
					return dbs[s].InTx(ctx, fn)
				}})
			})
		}
	}
}
