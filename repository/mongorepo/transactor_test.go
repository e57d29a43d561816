package mongorepo_test

import (
	"context"
	"errors"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/mongorepo"
)

// Where transactions are kept, InTx commits and rolls back; where they only look so, as on FerretDB, NewTransactor says
// it, and leaves nothing behind.
func TestTransactorRefusesFakeTransactions(t *testing.T) {
	db, r := open(t)
	tx, err := mongorepo.NewTransactor(t.Context(), db)
	n, cerr := db.Collection("sillar_probe").CountDocuments(t.Context(), bson.D{})
	if cerr != nil || n != 0 {
		t.Errorf("the probe left %d documents (%v)", n, cerr)
	}
	if errors.Is(err, repository.ErrNoTransactions) {
		t.Logf("the server keeps no transactions: %v", err)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	boom := errors.New("boom")
	create := func(sku string) func(context.Context) error {
		return func(ctx context.Context) error { _, err := r.Create(ctx, widget{SKU: sku}); return err }
	}
	for what, c := range map[string]struct {
		fn   func(context.Context) error
		want error
		rows int64
	}{
		"an error": {func(ctx context.Context) error { return errors.Join(create("a")(ctx), boom) }, boom, 0},
		"a nested error that is swallowed": {func(ctx context.Context) error {
			_ = tx.InTx(ctx, func(ctx context.Context) error { return errors.Join(create("b")(ctx), boom) })
			return nil
		}, mongorepo.ErrDoomed, 0},
		"a commit": {func(ctx context.Context) error {
			return errors.Join(create("c")(ctx), tx.InTx(ctx, create("d")))
		}, nil, 2},
	} {
		if err := tx.InTx(t.Context(), c.fn); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", what, err, c.want)
		}
		n, err := r.Count(t.Context(), repository.Filter[widget]{})
		if err != nil || n != c.rows {
			t.Errorf("%s: %d rows, want %d (%v)", what, n, c.rows, err)
		}
		for w, err := range r.Each(t.Context(), repository.Query[widget]{}) {
			if err = errors.Join(err, r.Delete(t.Context(), w.ID)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A server that does not answer is no server without transactions.
func TestTransactorNeedsAnAnswer(t *testing.T) {
	db, _ := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := mongorepo.NewTransactor(ctx, db); err == nil || errors.Is(err, repository.ErrNoTransactions) {
		t.Errorf("with a context that has ended: %v", err)
	}
}
