package sqloutbox_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sillar-go/sillar/messaging/outbox"
	"github.com/sillar-go/sillar/messaging/outbox/sqloutbox"
	"github.com/sillar-go/sillar/repository/sqldb"
)

// On SQLite leases and pauses are measured by the clock of the program, so that they pass in virtual time.
func TestOutboxOnSQLiteRunsInVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := sqldb.Must(sqldb.Open(t.Context(), "sqlite::memory:", sqldb.Config{}))
		defer db.Close()
		box := sqloutbox.Must(sqloutbox.New(db, sqloutbox.Config{Source: "test"}))
		if err := box.EnsureSchema(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := db.InTx(t.Context(), func(ctx context.Context) error { return box.Publish(ctx, "a", 1) }); err != nil {
			t.Fatal(err)
		}
		claim := func(from func(context.Context, string, int, time.Duration) ([]outbox.Entry, error),
			want int) []outbox.Entry {
			t.Helper()
			got, err := from(t.Context(), "relay", 10, time.Minute)
			if err != nil || len(got) != want {
				t.Errorf("%s: claimed %d events, %v, want %d", time.Now().Format(time.TimeOnly), len(got), err, want)
			}
			return got
		}
		claim(box.Claim, 1)
		time.Sleep(59 * time.Second)
		claim(box.Claim, 0)
		time.Sleep(time.Second)
		entries := claim(box.Claim, 1)
		if err := box.Hold(t.Context(), "relay", entries, outbox.Hold{Pause: time.Hour}); err != nil {
			t.Fatal(err)
		}
		claim(box.ClaimHeld, 0)
		time.Sleep(time.Hour)
		claim(box.ClaimHeld, 1)
	})
}
