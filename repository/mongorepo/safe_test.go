package mongorepo_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/sillar-go/sillar/internal/mongofake"
	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/driver"
	"github.com/sillar-go/sillar/repository/mongorepo"
	"github.com/sillar-go/sillar/repository/repositorytest"
)

// Whatever the client's defaults are, writes go to the majority, and what they begin with is read where they go: a node
// that lags would make conflicts, and documents that are not there.
func TestWritesAreSafe(t *testing.T) {
	stored := bson.D{{Key: "_id", Value: "a"}, {Key: "version", Value: int64(1)}}
	db, commands := mongofake.Start(t, func(c mongofake.Command) bson.D {
		if c.Name == "find" {
			return mongofake.Found(stored)
		}
		return nil
	}, mongofake.Lax())
	ctx := t.Context()
	r, err := mongorepo.New[widget](ctx, db, mongorepo.Config{Collection: "widgets", Unique: repositorytest.Unique})
	if err != nil {
		t.Fatal(err)
	}
	tell := func(ctx context.Context, _ *widget) error {
		return driver.Collect(ctx, driver.Effect{ID: "e", Kind: "message"})
	}
	_, err1 := r.Create(ctx, widget{SKU: "a"})
	_, err2 := r.Update(ctx, "a", tell)
	_, err3 := r.Replace(ctx, widget{Meta: repository.Meta{ID: "a", Version: 1}})
	if err := errors.Join(err1, err2, err3, r.Delete(ctx, "a"), r.Delete(ctx, "a", tell)); err != nil {
		t.Fatal(err)
	}
	list := commands()
	if lapses := mongofake.Lapses(list); len(list) < 8 || lapses != nil {
		t.Errorf("writes of %d commands: %q", len(list), lapses)
	}
	if _, err := r.Get(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(mongofake.Lapses(commands()), ", "); got != "find widgets at another node" {
		t.Errorf("a read that is as the client wants it: %q", got)
	}
}

var transactionErrors = map[string]struct {
	answers []bson.D // of inserts
	none    bool
	want    string // in the error
}{
	"transactions": {nil, false, ""},
	"another process makes the collection at the same time": {
		[]bson.D{mongofake.Error(112, "WriteConflict", "Collection namespace is already in use",
			"TransientTransactionError")}, false, ""},
	"a standalone server": {
		[]bson.D{mongofake.Error(20, "IllegalOperation",
			"Transaction numbers are only allowed on a replica set member or mongos")}, true, "replica set"},
	"the primary is gone": {
		[]bson.D{mongofake.Error(10107, "NotWritablePrimary", "not primary"), mongofake.Error(10107, "NotWritablePrimary",
			"not primary")}, false, "not primary"},
}

// NewTransactor says that there are no transactions when the server says so, and nothing of the kind when it lost
// against another process that tries as well, or at a failover.
func TestTransactorAtAReplicaSet(t *testing.T) {
	for name, c := range transactionErrors {
		t.Run(name, func(t *testing.T) {
			n := 0
			db, commands := mongofake.Start(t, func(m mongofake.Command) bson.D {
				if m.Name != "insert" {
					return nil
				}
				if n++; n <= len(c.answers) {
					return c.answers[n-1]
				}
				return nil
			}, mongofake.Lax())
			_, err := mongorepo.NewTransactor(t.Context(), db)
			if (err == nil) != (c.want == "") || errors.Is(err, repository.ErrNoTransactions) != c.none || err != nil &&
				!strings.Contains(err.Error(), c.want) {
				t.Errorf("%v", err)
			}
			aborted := false
			for _, m := range commands() {
				aborted = aborted || m.Name == "abortTransaction"
				if m.Name == "commitTransaction" {
					t.Error("the trial was committed")
				}
			}
			if c.want == "" && !aborted {
				t.Error("the trial was not rolled back")
			}
		})
	}
}

// A transaction reads and writes at the primary whatever the client's defaults are, and is run again when it lost; an
// error of the commit says what it is of.
func TestInTxAtAReplicaSet(t *testing.T) {
	conflicts, refuse := 1, false
	db, commands := mongofake.Start(t, func(c mongofake.Command) bson.D {
		switch {
		case c.Name == "find":
			return mongofake.Found(bson.D{{Key: "_id", Value: "a"}, {Key: "version", Value: int64(1)}})
		case c.Name == "update" && conflicts > 0:
			conflicts--
			return mongofake.Error(112, "WriteConflict", "conflict", "TransientTransactionError")
		case c.Name == "commitTransaction" && refuse:
			return mongofake.Error(263, "OperationNotSupportedInTransaction", "no")
		}
		return nil
	}, mongofake.Lax())
	tx, err := mongorepo.NewTransactor(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	r := mongorepo.Must(mongorepo.New[widget](t.Context(), db, mongorepo.Config{Collection: "widgets"}))
	commands()
	runs := 0
	both := func(ctx context.Context) error {
		runs++
		_, err1 := r.Get(ctx, "a")
		_, err2 := r.Update(ctx, "a", func(_ context.Context, w *widget) error { w.Price++; return nil })
		return errors.Join(err1, err2)
	}
	if err := tx.InTx(t.Context(), both); err != nil || runs != 2 {
		t.Errorf("after %d runs: %v", runs, err)
	}
	committed := false
	for _, c := range commands() {
		if c.Secondary {
			t.Errorf("%s at another node", c.Name)
		}
		if c.Name == "commitTransaction" {
			committed = true
			if w := c.Lookup("writeConcern", "w"); w != "majority" {
				t.Errorf("committed with %q", w)
			}
		}
	}
	if !committed {
		t.Error("nothing was committed")
	}
	refuse = true
	var refused mongo.CommandError
	if err := tx.InTx(t.Context(), both); !errors.As(err, &refused) || !strings.HasPrefix(err.Error(),
		"mongorepo: commit: ") {
		t.Errorf("a commit that is refused: %v", err)
	}
}
