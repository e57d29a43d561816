package repositorytest_test

import (
	"context"
	"iter"
	"time"

	"github.com/sillar-go/sillar/repository"
)

// wrong is a repository in memory whose methods can be replaced.
type wrong struct {
	repository.Repository[widget]
	create  func(ctx context.Context, e widget, then []repository.WriteHook[widget]) (widget, error)
	get     func(ctx context.Context, id string) (widget, error)
	getMany func(ctx context.Context, ids []string) ([]widget, error)
	find    func(ctx context.Context, q repository.Query[widget]) (repository.Page[widget], error)
	count   func(ctx context.Context, where repository.Filter[widget]) (int64, error)
	update  func(ctx context.Context, id string, change repository.WriteHook[widget]) (widget, error)
	replace func(ctx context.Context, e widget) (widget, error)
	remove  func(ctx context.Context, id string) error
	many    func(ctx context.Context, list []widget) ([]widget, error)
	put     func(ctx context.Context, e widget) (widget, error)
	set     func(ctx context.Context, where repository.Filter[widget], set []repository.Assignment[widget]) (int64, error)
	clear   func(ctx context.Context, where repository.Filter[widget]) (int64, error)
}

func (w *wrong) CreateMany(ctx context.Context, list []widget) ([]widget, error) {
	if w.many == nil {
		return w.Repository.CreateMany(ctx, list)
	}
	return w.many(ctx, list)
}

func (w *wrong) Put(ctx context.Context, e widget) (widget, error) {
	if w.put == nil {
		return w.Repository.Put(ctx, e)
	}
	return w.put(ctx, e)
}

func (w *wrong) UpdateWhere(
	ctx context.Context, where repository.Filter[widget], set ...repository.Assignment[widget],
) (int64, error) {
	if w.set == nil {
		return w.Repository.UpdateWhere(ctx, where, set...)
	}
	return w.set(ctx, where, set)
}

func (w *wrong) DeleteWhere(ctx context.Context, where repository.Filter[widget]) (int64, error) {
	if w.clear == nil {
		return w.Repository.DeleteWhere(ctx, where)
	}
	return w.clear(ctx, where)
}

func (w *wrong) Create(ctx context.Context, e widget, then ...repository.WriteHook[widget]) (widget, error) {
	if w.create == nil {
		return w.Repository.Create(ctx, e, then...)
	}
	return w.create(ctx, e, then)
}

func (w *wrong) Get(ctx context.Context, id string) (widget, error) {
	if w.get == nil {
		return w.Repository.Get(ctx, id)
	}
	return w.get(ctx, id)
}

func (w *wrong) GetMany(ctx context.Context, ids []string) ([]widget, error) {
	if w.getMany == nil {
		return w.Repository.GetMany(ctx, ids)
	}
	return w.getMany(ctx, ids)
}

func (w *wrong) Find(ctx context.Context, q repository.Query[widget]) (repository.Page[widget], error) {
	if w.find == nil {
		return w.Repository.Find(ctx, q)
	}
	return w.find(ctx, q)
}

func (w *wrong) Each(ctx context.Context, q repository.Query[widget]) iter.Seq2[widget, error] {
	return q.Pages(ctx, w.Find)
}

func (w *wrong) Count(ctx context.Context, where repository.Filter[widget]) (int64, error) {
	if w.count == nil {
		return w.Repository.Count(ctx, where)
	}
	return w.count(ctx, where)
}

func (w *wrong) Update(ctx context.Context, id string, change repository.WriteHook[widget]) (widget, error) {
	if w.update == nil {
		return w.Repository.Update(ctx, id, change)
	}
	return w.update(ctx, id, change)
}

func (w *wrong) Replace(ctx context.Context, e widget) (widget, error) {
	if w.replace == nil {
		return w.Repository.Replace(ctx, e)
	}
	return w.replace(ctx, e)
}

func (w *wrong) Delete(ctx context.Context, id string, then ...repository.WriteHook[widget]) error {
	if w.remove == nil {
		return w.Repository.Delete(ctx, id, then...)
	}
	return w.remove(ctx, id)
}

// overwrite stores e whatever is there.
func (w *wrong) overwrite(ctx context.Context, e widget) (widget, error) {
	return w.Repository.Update(ctx, e.ID, func(_ context.Context, x *widget) error { *x = e; return nil })
}

// inTwoSteps reads, changes, and writes after a while, whatever has come in between.
func (w *wrong) inTwoSteps(ctx context.Context, id string, change repository.WriteHook[widget],
	write func(context.Context, widget) (widget, error)) (widget, error) {
	e, err := w.Repository.Get(ctx, id)
	if err != nil {
		return e, err
	}
	if err := change(ctx, &e); err != nil {
		return e, err
	}
	time.Sleep(time.Millisecond)
	return write(ctx, e)
}
