package mongoinbox_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/sillar-go/sillar/internal/mongofake"
	"github.com/sillar-go/sillar/messaging/inbox/mongoinbox"
)

// A note that is there, and that the majority does not have yet, makes no duplicate: a failover may take it back.
func TestNotesOfTheMajority(t *testing.T) {
	note := mongofake.Found(bson.D{{Key: "_id", Value: "a"}})
	for name, c := range map[string]struct {
		local, majority []bool // whether the note is found, look by look; the last one counts for all others
		dup, fails      bool
		runs            int
	}{
		"it has it":                 {[]bool{true}, []bool{true}, true, false, 0},
		"it gets it":                {[]bool{true}, []bool{false, false, true}, true, false, 0},
		"a failover took it back":   {[]bool{true, false}, []bool{false}, false, true, 0},
		"it was written meanwhile":  {[]bool{false, true}, []bool{false, true}, true, false, 1},
		"there is none":             {[]bool{false}, []bool{false}, false, false, 1},
		"it was, and is taken back": {[]bool{false, true, false}, []bool{false}, false, true, 1},
	} {
		t.Run(name, func(t *testing.T) {
			next := func(looks *[]bool) bool {
				found := (*looks)[0]
				if len(*looks) > 1 {
					*looks = (*looks)[1:]
				}
				return found
			}
			db, commands := mongofake.Start(t, func(m mongofake.Command) bson.D {
				if m.Name == "listIndexes" {
					return mongofake.Found(bson.D{{Key: "name", Value: "sillar_applied_once"}, {Key: "ns", Value: "fake.stock"},
						{Key: "v", Value: 2},
						{Key: "key", Value: bson.D{{Key: "_effects.id", Value: 1}}}})
				}
				looks := &c.local
				if m.Lookup("readConcern", "level") == "majority" {
					looks = &c.majority
				}
				if m.Name == "find" && next(looks) {
					return note
				}
				return nil
			}, mongofake.Lax())
			inbox := mongoinbox.Must(mongoinbox.New(db, mongoinbox.Config{Collections: []string{"stock"}}))
			runs := 0
			dup, err := inbox.Once(t.Context(), "c", "m", func(ctx context.Context) error {
				runs++
				if err := inbox.Apply(ctx); errors.Is(err, mongoinbox.ErrApplied) {
					return err
				}
				return nil
			})
			if dup != c.dup || (err != nil) != c.fails || runs != c.runs {
				t.Errorf("duplicate %v after %d runs, %v", dup, runs, err)
			}
			list := commands()
			if lapses := mongofake.Lapses(list); lapses != nil {
				t.Errorf("%q", lapses)
			}
			if !slices.ContainsFunc(list, func(m mongofake.Command) bool { return m.Name == "find" }) {
				t.Error("no relay has looked")
			}
		})
	}
}
