package sagamongo_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readconcern"

	"github.com/sillar-go/sillar/internal/mongofake"
	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/sagamongo"
)

// batch is an answer of a change stream. The server has closed one whose cursor is 0.
func batch(name string, cursor int64, events ...bson.D) bson.D {
	return bson.D{{Key: "ok", Value: 1.0}, {Key: "cursor", Value: bson.D{{Key: "id", Value: cursor},
		{Key: "ns", Value: "fake.sillar_sagas"}, {Key: name, Value: append([]bson.D{}, events...)}}}}
}

// change is an event of a change stream, as MongoDB's manual describes it.
func change(kind, id string, updated bson.D) bson.D {
	return bson.D{
		{Key: "_id", Value: bson.D{{Key: "_data", Value: "token of " + id}}},
		{Key: "operationType", Value: kind},
		{Key: "ns", Value: bson.D{{Key: "db", Value: "fake"}, {Key: "coll", Value: "sillar_sagas"}}},
		{Key: "documentKey", Value: bson.D{{Key: "_id", Value: id}}},
		{Key: "updateDescription", Value: bson.D{{Key: "updatedFields", Value: updated},
			{Key: "removedFields", Value: bson.A{}}}},
	}
}

// stream answers as a server whose change stream has the events that are sent, and keeps its commands.
func stream(events <-chan []bson.D) func(mongofake.Command) bson.D {
	return func(c mongofake.Command) bson.D {
		switch c.Name {
		case "aggregate":
			return batch("firstBatch", 7)
		case "getMore":
			select {
			case list := <-events:
				return batch("nextBatch", 7, list...)
			case <-time.After(10 * time.Millisecond): // as a server waits for events
				return batch("nextBatch", 7)
			}
		}
		return nil
	}
}

// heard receives ids until there are n of them.
func heard(t *testing.T, ids <-chan []string, n int) (list []string) {
	t.Helper()
	for len(list) < n {
		select {
		case more := <-ids:
			list = append(list, more...)
		case <-time.After(20 * time.Second):
			t.Fatalf("heard of %v within 20s, want %d sagas", list, n)
		}
	}
	return list
}

// The ids of a batch come in one call, and Listen ends with its context. Whatever the client's defaults are, the stream
// is the primary's and has what the majority has.
func TestListenersAreNotifiedOfEnds(t *testing.T) {
	events := make(chan []bson.D)
	db, commands := mongofake.Start(t, stream(events), mongofake.Lax(),
		options.Client().SetReadConcern(readconcern.Local()))
	store := sagamongo.Must(sagamongo.New(t.Context(), db, sagamongo.Config{}))
	ctx, stop := context.WithCancel(t.Context())
	ids, done := make(chan []string, 8), make(chan error, 1)
	go func() { done <- store.Listen(ctx, func(list []string) { ids <- list }) }()
	for i := range 3 {
		a, b := fmt.Sprint("a", i), fmt.Sprint("b", i)
		select {
		case events <- []bson.D{change("update", a, nil), change("update", b, nil)}:
		case <-time.After(20 * time.Second):
			t.Fatal("the stream was not asked for events within 20s")
		}
		select {
		case list := <-ids:
			if want := []string{a, b}; !slices.Equal(list, want) {
				t.Errorf("heard of %q, want %q", list, want)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("no notification within 20s")
		}
	}
	stop()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("Listen: %v, want nil", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("Listen went on for 20s after its context had ended")
	}
	list := commands()
	if lapses := mongofake.Lapses(list); lapses != nil {
		t.Errorf("%q", lapses)
	}
	for _, c := range list {
		if level := c.Lookup("readConcern", "level"); c.Name == "aggregate" && level != "majority" {
			t.Errorf("the read concern of the stream is %q, which the server refuses", level)
		}
	}
}

// The stages behind $changeStream, which any server runs, select the updates by which a saga ends.
func TestListenSelectsEnds(t *testing.T) {
	events, asked := make(chan []bson.D, 1), make(chan bson.Raw, 1)
	answer := stream(events)
	fake, _ := mongofake.Start(t, func(c mongofake.Command) bson.D {
		if c.Name == "aggregate" {
			asked <- c.Body
		}
		return answer(c)
	})
	go func() {
		_ = sagamongo.Must(sagamongo.New(t.Context(), fake, sagamongo.Config{})).Listen(t.Context(), func([]string) {})
	}()
	var command struct {
		Pipeline []bson.Raw `bson:"pipeline"`
	}
	select {
	case body := <-asked:
		if err := bson.Unmarshal(body, &command); err != nil {
			t.Fatal(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("no stream was opened within 20s")
	}
	status := func(s saga.Status) bson.D { return bson.D{{Key: "status", Value: s}, {Key: "cursor", Value: 1}} }
	changes := testenv.MongoDatabase(t, testenv.Mongo(t)).Collection("changes")
	_, err := changes.InsertMany(t.Context(), []bson.D{
		change("update", "completed", status(saga.Completed)),
		change("update", "compensated", status(saga.Compensated)),
		change("update", "stuck", status(saga.Stuck)),
		change("update", "compensates", status(saga.Compensating)),
		change("update", "retried", status(saga.Running)),
		change("update", "claimed", bson.D{{Key: "owner", Value: "node"}, {Key: "fence", Value: 2}}),
		change("insert", "started", nil),
		change("delete", "pruned", nil),
	})
	if err != nil {
		t.Fatal(err)
	}
	cur, err := changes.Aggregate(t.Context(), command.Pipeline[1:])
	if err != nil {
		t.Fatal(err)
	}
	var selected []struct {
		Key struct {
			ID string `bson:"_id"`
		} `bson:"documentKey"`
		Token  bson.D `bson:"_id"`
		Update bson.D `bson:"updateDescription"`
	}
	if err := cur.All(t.Context(), &selected); err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, s := range selected {
		ids = append(ids, s.Key.ID)
		if len(s.Token) == 0 || s.Update != nil {
			t.Errorf("%s: token %v, and the state of the saga is sent: %v", s.Key.ID, s.Token, s.Update)
		}
	}
	slices.Sort(ids)
	if want := []string{"compensated", "completed", "stuck"}; !slices.Equal(ids, want) {
		t.Errorf("selected %q, want %q", ids, want)
	}
}

// What a replica set refuses for the moment is an error, after which the orchestrator listens again; what a server does
// not have is none, and what the client may not do is not tried again.
func TestListenTellsRefusalsApart(t *testing.T) {
	t.Parallel()
	const none, denied, again = "none", "denied", "again"
	for name, c := range map[string]struct {
		refusal bson.D
		want    string
	}{
		"a standalone server": {mongofake.Error(40573, "Location40573",
			"The $changeStream stage is only supported on replica sets"), none},
		"another server": {mongofake.Error(115, "CommandNotSupported",
			"Stage $changeStream is not supported yet in native pipeline"), none},
		"a missing privilege":     {mongofake.Error(13, "Unauthorized", "not authorized on fake to execute command"), denied},
		"a server that is loaded": {mongofake.Error(50, "MaxTimeMSExpired", "operation exceeded time limit"), again},
		"a history that is gone": {mongofake.Error(286, "ChangeStreamHistoryLost", "the history is lost",
			"NonResumableChangeStreamError"), again},
		"a stream that is closed": {batch("firstBatch", 0), again},
		"a server that is silent": {nil, again},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			closed := make(chan struct{})
			db, _ := mongofake.Start(t, func(m mongofake.Command) bson.D {
				if m.Name == "aggregate" && c.refusal == nil {
					<-closed
				}
				if m.Name == "aggregate" {
					return c.refusal
				}
				return nil
			})
			defer close(closed)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			begin := time.Now()
			err := sagamongo.Must(sagamongo.New(ctx, db, sagamongo.Config{})).Listen(ctx, func([]string) {})
			got := again
			switch took := time.Since(begin); {
			case took > 15*time.Second:
				t.Fatalf("Listen went on for %v", took)
			case err == nil:
				got = none
			case errors.Is(err, errors.ErrUnsupported):
				got = denied
			}
			if got != c.want {
				t.Errorf("Listen: %v (%s), want %s", err, got, c.want)
			}
		})
	}
}

// A stream that breaks after it was open is an error too, and so is one whose server is silent.
func TestListenEndsWhenTheStreamBreaks(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]func(closed <-chan struct{}) bson.D{
		"the server closes it": func(<-chan struct{}) bson.D { return batch("nextBatch", 0) },
		"the server ends it": func(<-chan struct{}) bson.D {
			return mongofake.Error(286, "ChangeStreamHistoryLost", "the history is lost", "NonResumableChangeStreamError")
		},
		"the server is silent": func(closed <-chan struct{}) bson.D { <-closed; return batch("nextBatch", 7) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			closed := make(chan struct{})
			asked := 0
			db, _ := mongofake.Start(t, func(m mongofake.Command) bson.D {
				switch m.Name {
				case "aggregate":
					return batch("firstBatch", 7, change("update", "a", nil))
				case "getMore":
					if asked++; asked > 2 {
						return answer(closed)
					}
					return batch("nextBatch", 7)
				}
				return nil
			})
			defer close(closed)
			store := sagamongo.Must(sagamongo.New(t.Context(), db, sagamongo.Config{}))
			ids, done := make(chan []string, 8), make(chan error, 1)
			go func() { done <- store.Listen(t.Context(), func(list []string) { ids <- list }) }()
			heard(t, ids, 1)
			select {
			case err := <-done:
				if err == nil || errors.Is(err, errors.ErrUnsupported) {
					t.Errorf("Listen: %v, want an error after which it is called again", err)
				}
			case <-time.After(20 * time.Second):
				t.Error("Listen went on for 20s")
			}
		})
	}
}

// On a replica set a listener hears of the ends of sagas; on another server Listen returns nil, and callers of Wait
// poll.
func TestListenWithAndWithoutChangeStreams(t *testing.T) {
	store := open(t)
	ids, done := make(chan []string, 100), make(chan error, 1)
	ctx, stop := context.WithCancel(t.Context())
	go func() { done <- store.Listen(ctx, func(list []string) { ids <- list }) }()
	end := func(id string) {
		t.Helper()
		r, _, err := store.Insert(t.Context(), saga.Record{ID: id, Name: "x", Version: 1, Status: saga.Running,
			State: []byte("1"), WakeAt: time.Now(), Owner: "node", Fence: 1})
		if err == nil {
			r.Status, r.Owner = saga.Completed, ""
			err = store.Save(t.Context(), r)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for begin, n := time.Now(), 0; ; n++ { // the stream may not be open yet at the first
		end(fmt.Sprint("first", n))
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Listen: %v", err)
			}
			t.Log("the server has no change streams")
			stop()
			return
		case <-ids:
		case <-time.After(200 * time.Millisecond):
			if time.Since(begin) > 20*time.Second {
				t.Fatal("neither notified nor without change streams within 20s")
			}
			continue
		}
		break
	}
	end("second")
	for list := []string(nil); !slices.Contains(list, "second"); {
		list = heard(t, ids, 1)
	}
	stop()
	if err := <-done; err != nil {
		t.Errorf("Listen: %v", err)
	}
}
