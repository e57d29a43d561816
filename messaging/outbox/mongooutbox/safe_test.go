package mongooutbox_test

import (
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readconcern"

	"github.com/sillar-go/sillar/internal/mongofake"
	"github.com/sillar-go/sillar/messaging/outbox"
	"github.com/sillar-go/sillar/messaging/outbox/mongooutbox"
)

// Whatever the client's defaults are, a claim is the majority's before its events are published, and so is what settles
// it.
func TestClaimsAreSafe(t *testing.T) {
	db, commands := mongofake.Start(t, func(c mongofake.Command) bson.D {
		switch c.Name {
		case "find":
			return mongofake.Found(bson.D{{Key: "_id", Value: "a"}})
		case "findAndModify":
			return bson.D{{Key: "ok", Value: 1.0}, {Key: "value", Value: bson.D{{Key: "_id", Value: "a"},
				{Key: "_effects", Value: bson.A{bson.D{{Key: "id", Value: "e"}, {Key: "kind", Value: mongooutbox.Kind}}}}}}}
		}
		return nil
	}, mongofake.Lax())
	o := mongooutbox.Must(mongooutbox.New(db, mongooutbox.Config{Collections: []string{"things"}}))
	ctx := t.Context()
	entries, err := o.Claim(ctx, "me", 1, time.Minute)
	if err != nil || len(entries) != 1 {
		t.Fatalf("%v, %v", entries, err)
	}
	_, _, err = o.Pending(ctx)
	if err := errors.Join(err, o.Hold(ctx, "me", entries[:1], outbox.Hold{Pause: time.Minute, StopsKey: true}),
		o.Release(ctx, "me", entries), o.Done(ctx, "me", entries)); err != nil {
		t.Fatal(err)
	}
	list := commands()
	if lapses := mongofake.Lapses(list); len(list) < 8 || lapses != nil {
		t.Errorf("of %d commands: %q", len(list), lapses)
	}
}

// What a replica set refuses for the moment is tried again; what a server does not have is not.
func TestWakeAgain(t *testing.T) {
	for name, c := range map[string]struct {
		refusal bson.D
		polls   bool
	}{
		"a standalone server": {mongofake.Error(40573, "Location40573",
			"The $changeStream stage is only supported on replica sets"), true},
		"another server": {mongofake.Error(115, "CommandNotSupported",
			"Stage $changeStream is not supported yet in native pipeline"), true},
		"a step-down": {mongofake.Error(189, "PrimarySteppedDown", "stepped down"), false},
		"a stop":      {mongofake.Error(11602, "InterruptedDueToReplStateChange", "interrupted"), false},
		"a history that is gone": {mongofake.Error(286, "ChangeStreamHistoryLost", "the history is lost",
			"NonResumableChangeStreamError"), false},
		"a server that is loaded": {mongofake.Error(50, "MaxTimeMSExpired", "operation exceeded time limit"), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asked := 0
			db, _ := mongofake.Start(t, func(m mongofake.Command) bson.D {
				switch m.Name {
				case "aggregate":
					if asked++; asked <= 2 { // the driver asks twice by itself
						return c.refusal
					}
					event := bson.D{{Key: "_id", Value: bson.D{{Key: "_data", Value: "1"}}}}
					return bson.D{{Key: "ok", Value: 1.0}, {Key: "cursor", Value: bson.D{{Key: "id", Value: int64(7)},
						{Key: "ns", Value: "fake.$cmd.aggregate"},
						{Key: "firstBatch", Value: bson.A{event}}}}}
				case "getMore":
					time.Sleep(10 * time.Millisecond) // as a server waits for events
					return bson.D{{Key: "ok", Value: 1.0}, {Key: "cursor", Value: bson.D{{Key: "id", Value: int64(7)},
						{Key: "ns", Value: "fake.$cmd.aggregate"},
						{Key: "nextBatch", Value: bson.A{}}}}}
				}
				return nil
			})
			reported := make(chan string, 8)
			o := mongooutbox.Must(mongooutbox.New(db, mongooutbox.Config{Collections: []string{"things"},
				Logger: slog.New(slog.NewTextHandler(says(reported), nil))}))
			wake := o.Wake(t.Context())
			select {
			case <-wake:
				if c.polls {
					t.Error("woken, after a refusal that stays")
				}
			case line := <-reported:
				if !c.polls || !strings.Contains(line, "the relay polls") {
					t.Errorf("logged %q", line)
				}
			case <-time.After(20 * time.Second):
				t.Error("neither woken nor notified")
			}
		})
	}
}

// A stream on a connection that has gone silent is opened again, and what broke is logged. Whatever the client's
// defaults are, the stream is the primary's and has what the majority has.
func TestWakeOutlivesASilentStream(t *testing.T) {
	t.Parallel()
	closed := make(chan struct{})
	var asked atomic.Int32
	db, commands := mongofake.Start(t, func(m mongofake.Command) bson.D {
		cursor := func(name string, events ...bson.D) bson.D {
			return bson.D{{Key: "ok", Value: 1.0}, {Key: "cursor", Value: bson.D{{Key: "id", Value: int64(7)},
				{Key: "ns", Value: "fake.$cmd.aggregate"}, {Key: name, Value: append([]bson.D{}, events...)}}}}
		}
		switch m.Name {
		case "aggregate":
			if asked.Add(1) == 1 {
				return cursor("firstBatch")
			}
			return cursor("firstBatch", bson.D{{Key: "_id", Value: bson.D{{Key: "_data", Value: "1"}}}})
		case "getMore":
			if asked.Load() == 1 {
				<-closed // silent
			}
			time.Sleep(10 * time.Millisecond)
			return cursor("nextBatch")
		}
		return nil
	}, mongofake.Lax(), options.Client().SetReadConcern(readconcern.Local()))
	defer close(closed)
	reported := make(chan string, 8)
	o := mongooutbox.Must(mongooutbox.New(db, mongooutbox.Config{Collections: []string{"things"},
		Logger: slog.New(slog.NewTextHandler(says(reported), nil))}))
	select {
	case <-o.Wake(t.Context()):
	case <-time.After(30 * time.Second):
		t.Fatal("not woken within 30s: the stream was not opened again")
	}
	if line := <-reported; !strings.Contains(line, "the change stream broke") {
		t.Errorf("logged %q", line)
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
