package repositorytest

import (
	"context"
	"fmt"
	"iter"

	"github.com/sillar-go/sillar/internal/faultdraw"
	"github.com/sillar-go/sillar/repository"
)

// ErrInjected is the error of the faults of Faulty.
var ErrInjected = faultdraw.ErrInjected

// Faulty returns a repository whose calls fail now and then: reads and writes before they have an effect, and writes
// after it too, as when a connection breaks before the answer comes. rate is the part of the calls that fail, such as
// 0.1. The faults are those of the seed: the n-th call of a method always has the same one.
//
// It is for tests of a service: run it with many seeds, and check what must hold in the end.
func Faulty[E any](r repository.Repository[E], seed uint64, rate float64) repository.Repository[E] {
	return &faulty[E]{r, faultdraw.New(seed, rate)}
}

type faulty[E any] struct {
	repository.Repository[E]
	draw *faultdraw.Draw
}

func (f *faulty[E]) write(method string, run func() error) error {
	if err := f.draw.Do(method, run); err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	return nil
}

func (f *faulty[E]) read(method string, run func() error) error {
	if f.draw.At(method) != faultdraw.None {
		return fmt.Errorf("%s: %w", method, ErrInjected)
	}
	return run()
}

func (f *faulty[E]) Create(ctx context.Context, e E, then ...repository.WriteHook[E]) (out E, err error) {
	err = f.write("Create", func() (err error) { out, err = f.Repository.Create(ctx, e, then...); return err })
	return out, err
}

func (f *faulty[E]) CreateMany(ctx context.Context, list []E) (out []E, err error) {
	err = f.write("CreateMany", func() (err error) { out, err = f.Repository.CreateMany(ctx, list); return err })
	return out, err
}

func (f *faulty[E]) Put(ctx context.Context, e E) (out E, err error) {
	err = f.write("Put", func() (err error) { out, err = f.Repository.Put(ctx, e); return err })
	return out, err
}

func (f *faulty[E]) Update(ctx context.Context, id string, change repository.WriteHook[E]) (out E, err error) {
	err = f.write("Update", func() (err error) { out, err = f.Repository.Update(ctx, id, change); return err })
	return out, err
}

func (f *faulty[E]) Replace(ctx context.Context, e E) (out E, err error) {
	err = f.write("Replace", func() (err error) { out, err = f.Repository.Replace(ctx, e); return err })
	return out, err
}

func (f *faulty[E]) Delete(ctx context.Context, id string, then ...repository.WriteHook[E]) error {
	return f.write("Delete", func() error { return f.Repository.Delete(ctx, id, then...) })
}

func (f *faulty[E]) UpdateWhere(
	ctx context.Context, where repository.Filter[E], set ...repository.Assignment[E],
) (n int64, err error) {
	err = f.write("UpdateWhere", func() (err error) { n, err = f.Repository.UpdateWhere(ctx, where, set...); return err })
	return n, err
}

func (f *faulty[E]) DeleteWhere(ctx context.Context, where repository.Filter[E]) (n int64, err error) {
	err = f.write("DeleteWhere", func() (err error) { n, err = f.Repository.DeleteWhere(ctx, where); return err })
	return n, err
}

func (f *faulty[E]) Get(ctx context.Context, id string) (out E, err error) {
	err = f.read("Get", func() (err error) { out, err = f.Repository.Get(ctx, id); return err })
	return out, err
}

func (f *faulty[E]) GetMany(ctx context.Context, ids []string) (out []E, err error) {
	err = f.read("GetMany", func() (err error) { out, err = f.Repository.GetMany(ctx, ids); return err })
	return out, err
}

func (f *faulty[E]) Find(ctx context.Context, q repository.Query[E]) (page repository.Page[E], err error) {
	err = f.read("Find", func() (err error) { page, err = f.Repository.Find(ctx, q); return err })
	return page, err
}

func (f *faulty[E]) Each(ctx context.Context, q repository.Query[E]) iter.Seq2[E, error] {
	return q.Pages(ctx, f.Find)
}

func (f *faulty[E]) Count(ctx context.Context, where repository.Filter[E]) (n int64, err error) {
	err = f.read("Count", func() (err error) { n, err = f.Repository.Count(ctx, where); return err })
	return n, err
}
