package repository_test

import (
	"errors"
	"testing"

	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/driver"
)

// A cursor from outside is the one that a page gave, or ErrCursor; it is never a panic.
func FuzzCursor(f *testing.F) {
	q := repository.Query[Product]{Where: price.Gte(1), Sort: []repository.Sort[Product]{name.Desc()}, Limit: 1}
	plan, err := q.Plan()
	if err != nil {
		f.Fatal(err)
	}
	_, good := driver.Page(plan, []Product{{Name: "Lamp", Meta: repository.Meta{ID: "1"}}, {}})
	for _, c := range []string{good, "", "AAAA", "AAAAAAAAAAAA", good[:len(good)-1], good + "A", "%00", "é"} {
		f.Add(c)
	}
	f.Fuzz(func(t *testing.T, cursor string) {
		q := q
		q.After = cursor
		_, err := q.Plan()
		if accepted := cursor == good || cursor == ""; accepted && err != nil || !accepted &&
			!errors.Is(err, repository.ErrCursor) {
			t.Errorf("%q: %v", cursor, err)
		}
	})
}
