package memrepo_test

import (
	"errors"
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

func TestViewConformance(t *testing.T) {
	repositorytest.RunView(t, func(t testing.TB) (repository.Repository[repositorytest.Widget],
		repository.Reader[repositorytest.Label]) {
		r := memrepo.Must(memrepo.New[repositorytest.Widget](memrepo.Config{}))
		v, err := memrepo.View[repositorytest.Label](r)
		if err != nil {
			t.Fatal(err)
		}
		return r, v
	}, repositorytest.Features{})
}

func TestViewRefusesFieldsThatAreNotThere(t *testing.T) {
	r := memrepo.Must(memrepo.New[repositorytest.Widget](memrepo.Config{}))
	_, err := memrepo.View[struct {
		repository.Meta
		Price int32
	}](r)
	if !errors.As(err, new(*repository.FieldError)) {
		t.Errorf("a field of another type: %v, want a FieldError", err)
	}
	_, err = memrepo.View[struct {
		repository.Meta
		None string
	}](r)
	if !errors.As(err, new(*repository.FieldError)) {
		t.Errorf("a field that is not there: %v, want a FieldError", err)
	}
}
