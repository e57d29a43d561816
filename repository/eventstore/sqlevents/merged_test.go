package sqlevents_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/eventstore"
	"github.com/sillar-go/sillar/repository/eventstore/sqlevents"
)

// Appends to one stream that share commits are each recorded once, in one piece, as they are returned; one that is
// refused fails alone.
func TestAppendsToOneStreamShareCommits(t *testing.T) {
	_, s := open(t, testenv.Postgres(t), sqlevents.Config{})
	ctx := t.Context()
	if _, err := s.Append(ctx, "other", eventstore.NoStream, eventstore.Event{ID: "taken", Type: "x"}); err != nil {
		t.Fatal(err)
	}
	const writers, each = 16, 25
	var mu sync.Mutex
	returned := map[int64]eventstore.Recorded{}
	refused := 0
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				events := []eventstore.Event{{Type: "a", Data: fmt.Appendf(nil, `"%d-%d"`, w, i)}, {Type: "b"}}
				if i == 7 {
					events[1].ID = "taken"
				}
				out, err := s.Append(ctx, "hot", eventstore.AnyVersion, events...)
				mu.Lock()
				switch {
				case i == 7 && errors.Is(err, repository.ErrUnique):
					refused++
				case err != nil || i == 7:
					t.Errorf("Append: %v", err)
				case out[1].Version != out[0].Version+1:
					t.Errorf("versions %d and %d, want one after the other", out[0].Version, out[1].Version)
				default:
					returned[out[0].Version], returned[out[1].Version] = out[0], out[1]
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if refused != writers {
		t.Errorf("%d appends were refused, want %d", refused, writers)
	}
	n := int64(0)
	for e, err := range s.LoadFrom(ctx, "hot", 0) {
		if err != nil {
			t.Fatal(err)
		}
		n++
		want := returned[e.Version]
		if e.Version != n || e.ID != want.ID || string(e.Data) != string(want.Data) && e.Type == "a" ||
			!e.Time.Equal(want.Time) || e.Position != want.Position {
			t.Errorf("event %d is %+v, returned was %+v", n, e, want)
		}
	}
	if n != 2*writers*(each-1) {
		t.Errorf("%d events, want %d", n, 2*writers*(each-1))
	}
}
