package testenv_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sillar-go/sillar/internal/testenv"
)

func TestPostgresClusterKeepsCommitsThroughAFailover(t *testing.T) {
	if testing.Short() {
		testenv.Missing(t, "two servers take some seconds: run without -short")
	}
	p := testenv.PostgresCluster(t)
	p.SQL(t, "CREATE TABLE t AS SELECT 42 AS x")
	p.Failover(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c, err := pgx.Connect(ctx, p.URL(""))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	var x int
	if err := c.QueryRow(ctx, "UPDATE t SET x = x RETURNING x").Scan(&x); err != nil || x != 42 {
		t.Errorf("after the failover: %d, %v, want 42", x, err)
	}
}
