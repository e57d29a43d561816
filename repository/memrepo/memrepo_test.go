package memrepo_test

import (
	"testing"

	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/memrepo"
	"github.com/sillar-go/sillar/repository/repositorytest"
)

func TestConformance(t *testing.T) {
	repositorytest.Run(t, func(testing.TB) repository.Repository[repositorytest.Widget] {
		return memrepo.Must(memrepo.New[repositorytest.Widget](memrepo.Config{Unique: repositorytest.Unique}))
	}, repositorytest.Features{})
}

func TestMappingConformance(t *testing.T) {
	repositorytest.RunMapping(t, func(testing.TB) repository.Repository[repositorytest.Mapped] {
		return memrepo.Must(memrepo.New[repositorytest.Mapped](memrepo.Config{}))
	}, repositorytest.Features{})
}
