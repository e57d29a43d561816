package sqlevents

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/eventstore"
	"github.com/sillar-go/sillar/repository/sqldb"
)

func event(id string) eventstore.Event {
	return eventstore.Event{ID: id, Type: "t", Schema: 1, Data: json.RawMessage(`{"a":1}`)}
}

// A group appends what it can in one statement. A stream that is locked, is at another version or comes twice is left
// to its caller, and the others do not wait for it; an event that the database refuses does not affect the others.
func TestGroupedAppendsFailOneByOne(t *testing.T) {
	db := sqldb.Must(sqldb.Open(t.Context(), testenv.Postgres(t), sqldb.Config{}))
	defer db.Close()
	s := Must(New(db, Config{}))
	if err := s.EnsureSchema(t.Context()); err != nil {
		t.Fatal(err)
	}
	for n := range 10 {
		if _, err := s.Append(t.Context(), fmt.Sprint("s", n), eventstore.NoStream,
			event(fmt.Sprint("first", n))); err != nil {
			t.Fatal(err)
		}
	}
	group := func(list ...*appending) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		out := ""
		for i, err := range s.appendAll(ctx, list) {
			switch {
			case errors.Is(err, errAlone):
				out += " alone"
			case err != nil:
				t.Error(err)
			default:
				for n, r := range list[i].out {
					if r.Version != list[i].expected+int64(n)+1 || r.Position == 0 {
						t.Errorf("%s came to version %d, position %d", list[i].stream, r.Version, r.Position)
					}
				}
				out += " done"
			}
		}
		return out
	}
	at := func(stream string, version int64, ids ...string) *appending {
		a := &appending{stream: stream, expected: version}
		for _, id := range ids {
			a.out = append(a.out, eventstore.Recorded{Event: event(id), Stream: stream, Time: time.Now()})
		}
		return a
	}
	if got := group(at("s0", 1, "a0"), at("s1", 1, "a1", "b1", "c1"), at("s2", 2, "a2"), at("none", 1, "a3"),
		at("s0", 1, "a4"), at("s3", 1, "a5")); got != " done done alone alone alone done" {
		t.Errorf("mixed:%s", got)
	}
	held, release := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = db.InTx(t.Context(), func(ctx context.Context) error {
			_, err := s.Append(ctx, "s4", 1, event("held"))
			close(held)
			<-release
			return err
		})
	})
	<-held
	if got := group(at("s5", 1, "a6"), at("s4", 1, "a7"), at("s6", 1, "a8")); got != " done alone done" {
		t.Errorf("beside one that is held:%s", got)
	}
	close(release)
	wg.Wait()
	if got := group(at("s7", 1, "a9"), at("s8", 1, "first0"), at("s9", 1, "a10")); got != " alone alone alone" {
		t.Errorf("beside a duplicate id:%s", got)
	}

	// The same through Append, all at once: each caller succeeds or gets its own error.
	for i, c := range []struct {
		stream  string
		version int64
		id      string
		wrong   func(error) bool
	}{
		{"s7", 1, "b0", nil}, {"s8", 1, "first0", func(err error) bool { return errors.Is(err, repository.ErrUnique) }},
		{"s9", 1, "b2", nil}, {"s0", 1, "b3", func(err error) bool { return errors.Is(err, repository.ErrConflict) }},
		{"s1", 4, "b4", nil},
	} {
		wg.Go(func() {
			if _, err := s.Append(t.Context(), c.stream, c.version, event(c.id)); c.wrong == nil && err != nil ||
				c.wrong != nil && !c.wrong(err) {
				t.Errorf("%d: %v", i, err)
			}
		})
	}
	wg.Wait()
	total := 0
	for n := range 10 {
		version := int64(0)
		for e, err := range s.LoadFrom(t.Context(), fmt.Sprint("s", n), 0) {
			if version++; err != nil || e.Version != version {
				t.Errorf("s%d: event %d has version %d, %v", n, version, e.Version, err)
			}
			total++
		}
	}
	if total != 10+1+3+1+1+2+3 {
		t.Errorf("%d events", total)
	}
}
