package memevents_test

import (
	"testing"

	"github.com/sillar-go/sillar/repository/eventstore"
	"github.com/sillar-go/sillar/repository/eventstore/eventstoretest"
	"github.com/sillar-go/sillar/repository/eventstore/memevents"
)

func TestConformance(t *testing.T) {
	eventstoretest.Run(t, func(testing.TB) eventstore.Store { return memevents.New(memevents.Config{}) },
		eventstoretest.Features{})
}
