package memevents_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/eventstore"
	"github.com/sillar-go/sillar/repository/eventstore/memevents"
)

func Example() {
	ctx := context.Background()
	store := memevents.New(memevents.Config{})
	for _, what := range []string{"created", "paid"} {
		_, err := store.Append(ctx, "order-1", eventstore.NoStream, eventstore.Event{Type: what, Data: []byte(`{}`)})
		fmt.Println(what, errors.Is(err, repository.ErrConflict))
	}
	for e, err := range eventstore.Load(ctx, store, "order-1") {
		fmt.Println(e.Version, e.Type, err)
	}
	// Output:
	// created false
	// paid true
	// 1 created <nil>
}
