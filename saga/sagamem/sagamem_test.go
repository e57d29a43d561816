package sagamem_test

import (
	"testing"

	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/sagamem"
	"github.com/sillar-go/sillar/saga/sagatest"
)

func TestConformance(t *testing.T) {
	sagatest.Run(t, func(testing.TB) saga.Store { return sagamem.New() }, sagatest.Features{})
}
