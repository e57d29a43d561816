package sqloutbox_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"github.com/sillar-go/sillar/internal/killtest"
	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/outbox/outboxtest"
	"github.com/sillar-go/sillar/messaging/outbox/sqloutbox"
	"github.com/sillar-go/sillar/repository/sqldb"
)

func init() {
	killtest.Register("relay", func(args []string) error {
		db, err := sqldb.Open(context.Background(), args[0], sqldb.Config{MaxConns: 4})
		if err != nil {
			return err
		}
		return outboxtest.RunRelay(sqloutbox.Must(sqloutbox.New(db, sqloutbox.Config{})), args[1])
	})
}

func TestKilledRelays(t *testing.T) {
	for name, dsn := range testenv.SQL() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at, file := dsn(t), filepath.Join(t.TempDir(), "witness")
			db, o := open(t, at)
			box := outboxtest.Box{Store: o, Commit: func(ctx context.Context, fail error, events ...messaging.Envelope) error {
				return db.InTx(ctx, func(ctx context.Context) error {
					err := o.PublishBatch(ctx, events)
					outboxtest.Wait(ctx)
					return errors.Join(err, fail)
				})
			}}
			// SQLite has one writer: there a transaction that waits keeps all others waiting.
			outboxtest.RunKilled(t, box, file, db.Dialect() == sqldb.PostgreSQL, func(t *testing.T) *killtest.Process {
				return killtest.Start(t, "relay", at, file)
			})
		})
	}
}
