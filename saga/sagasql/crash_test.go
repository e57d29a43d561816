package sagasql_test

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sillar-go/sillar/internal/killtest"
	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/repository/sqldb"
	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/barrier"
	"github.com/sillar-go/sillar/saga/sagasql"
)

// booking is the saga of the crash test. Its participants are tables of the same server, each behind a barrier.
type booking struct{ N int }

const crashTables = `CREATE TABLE IF NOT EXISTS effects (
	at BIGINT GENERATED ALWAYS AS IDENTITY, saga TEXT NOT NULL, step TEXT NOT NULL, op TEXT NOT NULL,
	fence BIGINT NOT NULL)`

func bookings(db *sqldb.DB, b *barrier.Barrier) *saga.Def[booking] {
	effect := func(op string) saga.Handler[booking] {
		return func(ctx context.Context, c *saga.Call, s *booking) error {
			if op == "do" && c.Step() == "pay" && crc32.ChecksumIEEE([]byte(c.SagaID()))%10 == 0 {
				return saga.Reject(errors.New("declined"))
			}
			return db.InTx(ctx, func(ctx context.Context) error {
				return b.Do(ctx, c.Key(), func(ctx context.Context) error {
					_, err := db.Querier(ctx).Exec(ctx, "INSERT INTO effects (saga, step, op, fence) VALUES ($1, $2, $3, $4)",
						c.SagaID(), c.Step(), op, c.Fence())
					return err
				})
			})
		}
	}
	quick := saga.Exponential(20*time.Millisecond, 100*time.Millisecond)
	return saga.Define[booking]("booking", 1,
		saga.Step("reserve", effect("do")).Compensate(effect("undo")).Retry(20, quick),
		saga.Step("pay", effect("do")).Compensate(effect("undo")).Retry(20, quick),
		saga.Pivot("confirm", effect("do")).Retry(50, quick),
		saga.Retriable("ship", effect("do")).Retry(50, quick))
}

func init() {
	killtest.Register("orchestrator", func(args []string) error {
		ctx := context.Background()
		db, err := sqldb.Open(ctx, args[0], sqldb.Config{MaxConns: 12})
		if err != nil {
			return err
		}
		b := barrier.Must(barrier.New(db, barrier.Config{}))
		o, err := saga.New(sagasql.Must(sagasql.New(db, sagasql.Config{})), saga.Config{Lease: 1500 * time.Millisecond,
			Poll:        100 * time.Millisecond,
			Concurrency: 16, Logger: slog.New(slog.DiscardHandler)}, bookings(db, b))
		if err != nil {
			return err
		}
		fmt.Println("ready")
		return o.Run(ctx)
	})
}

// Four orchestrators, killed at random and started again, over 500 sagas: all end, and every effect is there once or
// not at all.
func TestKilledOrchestratorsRepeatNoEffect(t *testing.T) {
	sagas := 500
	if testing.Short() {
		sagas = 100
	}
	dsn := testenv.Postgres(t)
	db := sqldb.Must(sqldb.Open(t.Context(), dsn, sqldb.Config{}))
	defer db.Close()
	store, b := sagasql.Must(sagasql.New(db, sagasql.Config{})), barrier.Must(barrier.New(db, barrier.Config{}))
	if err := errors.Join(store.EnsureSchema(t.Context()), b.EnsureSchema(t.Context()),
		db.Exec(t.Context(), crashTables)); err != nil {
		t.Fatal(err)
	}
	def := bookings(db, b)
	o := saga.Must(saga.New(store, saga.Config{}, def)) // starts sagas, and runs none
	for i := range sagas {
		if _, err := def.Start(t.Context(), o, fmt.Sprintf("b%04d", i), booking{i}); err != nil {
			t.Fatal(err)
		}
	}
	var nodes [4]*killtest.Process
	for i := range nodes {
		nodes[i] = killtest.Start(t, "orchestrator", dsn)
	}
	count := func(query string) (n int64) {
		t.Helper()
		if err := db.Querier(t.Context()).QueryRow(t.Context(), query).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	// orphans is since when each saga has had an owner without a lease.
	orphans, longest := map[string]time.Time{}, time.Duration(0)
	watch := func() {
		t.Helper()
		rows, err := db.Querier(t.Context()).Query(t.Context(),
			`SELECT s.id FROM sillar_sagas s WHERE s.status IN ('RUNNING', 'COMPENSATING') AND s.owner <> ''
			AND NOT EXISTS (SELECT 1 FROM sillar_orchestrators o WHERE o.node = s.owner AND o.expires_at > (extract(epoch from
			clock_timestamp()) * 1000000)::bigint)`)
		if err != nil {
			t.Fatal(err)
		}
		now := map[string]time.Time{}
		for rows.Next() {
			var id string
			if err := rows.Scan(&id); err != nil {
				t.Fatal(err)
			}
			since, seen := orphans[id]
			if !seen {
				since = time.Now()
			}
			now[id] = since
			longest = max(longest, time.Since(since))
		}
		if err := rows.Close(); err != nil {
			t.Fatal(err)
		}
		orphans = now
	}
	kills := 0
	const open = "SELECT count(*) FROM sillar_sagas WHERE status IN ('RUNNING', 'COMPENSATING')"
	for end := time.Now().Add(2 * time.Minute); count(open) > 0; {
		if time.Now().After(end) {
			t.Fatalf("%d sagas have not ended after %d kills", count(open), kills)
		}
		for pause := 2 + rand.IntN(6); pause > 0; pause-- {
			time.Sleep(50 * time.Millisecond)
			watch()
		}
		if kills < 40 { // then let them finish
			i := rand.IntN(len(nodes))
			nodes[i] = nodes[i].Restart(t)
			kills++
		}
	}
	takeovers := count("SELECT count(*) FROM sillar_sagas WHERE fence > 1")
	t.Logf("%d sagas, %d kills, %d sagas had more than one owner; longest without one after its lease: %v", sagas, kills,
		takeovers, longest)
	// a poll is 100 ms, but the processes that poll are being killed, and the machine is loaded
	if longest > 5*time.Second {
		t.Errorf("a saga was without an owner for %v", longest)
	}
	if takeovers == 0 {
		t.Error("no saga was ever taken over: the kills came too late")
	}
	for what, query := range map[string]string{
		"sagas are stuck": "SELECT count(*) FROM sillar_sagas WHERE status NOT IN ('COMPLETED', " +
			"'COMPENSATED')",
		"effects happened twice": "SELECT count(*) FROM (SELECT 1 FROM effects GROUP BY saga, step, op " +
			"HAVING count(*) > 1) x",
		"completed sagas lack an effect": "SELECT count(*) FROM sillar_sagas s WHERE status = 'COMPLETED' AND " +
			"(SELECT count(*) FROM effects e WHERE e.saga = s.id AND op = 'do') <> 4",
		"completed sagas were undone": "SELECT count(*) FROM sillar_sagas s JOIN effects e ON e.saga = s.id " +
			"WHERE s.status = 'COMPLETED' AND e.op = 'undo'",
		"compensated sagas left an effect alive": "SELECT count(*) FROM sillar_sagas s JOIN effects d ON d.saga = s.id " +
			"AND d.op = 'do' WHERE s.status = 'COMPENSATED' AND NOT EXISTS (SELECT 1 FROM effects u WHERE u.saga = d.saga " +
			"AND u.step = d.step AND u.op = 'undo')",
		"compensated sagas passed their pivot": "SELECT count(*) FROM sillar_sagas s JOIN effects e ON e.saga = s.id " +
			"AND e.step IN ('confirm', 'ship') WHERE s.status = 'COMPENSATED'",
		"effects came under an older fence later": "SELECT count(*) FROM effects a JOIN effects b ON a.saga = b.saga AND " +
			"a.at < b.at AND a.fence > b.fence",
	} {
		if n := count(query); n != 0 {
			t.Errorf("%d %s", n, what)
		}
	}
	if n := count("SELECT count(*) FROM sillar_sagas WHERE status = 'COMPENSATED'"); n == 0 {
		t.Error("no saga was compensated: nothing was declined")
	}
}
