package sqlevents_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/repository/eventstore/sqlevents"
)

// Logical replication brings rows with the transaction ids of the other server, but not what its sequences counted.
func TestReplicatedDatabase(t *testing.T) {
	p := testenv.PostgresCluster(t)
	p.SQL(t, "ALTER SYSTEM SET synchronous_standby_names = ''") // a subscriber would count as a standby
	p.SQL(t, "SELECT pg_reload_conf()")
	p.SQL(t, "CREATE DATABASE target")
	want := fillAhead(t, p.URL(""), "WHERE position > 7")
	db, s := open(t, p.URL("target"), sqlevents.Config{Coalesce: -1})

	p.SQL(t, "CREATE PUBLICATION events FOR TABLE sillar_events, sillar_streams, sillar_checkpoints")
	// In one cluster a subscription cannot make its slot: that would wait for itself.
	p.SQL(t, "SELECT pg_create_logical_replication_slot('events', 'pgoutput')")
	for _, statement := range []string{
		fmt.Sprintf("CREATE SUBSCRIPTION events CONNECTION '%s' PUBLICATION events WITH (create_slot = false)", p.URL("")),
		"", // until all has come
		"ALTER SUBSCRIPTION events DISABLE",
		"ALTER SUBSCRIPTION events SET (slot_name = NONE)",
		"DROP SUBSCRIPTION events",
	} {
		if statement == "" {
			awaitReplicated(t, p)
			continue
		}
		if err := db.Exec(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	checkRestored(t, s, want)
}

// awaitReplicated waits until the tables of the target have been copied.
func awaitReplicated(t *testing.T, p *testenv.PostgresPair) {
	t.Helper()
	const ready = "SELECT count(*) FROM pg_subscription_rel WHERE srsubstate = 'r'"
	for end := time.Now().Add(time.Minute); p.Value(t, "target", ready) != "3"; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the tables were not replicated within a minute")
		}
	}
}
