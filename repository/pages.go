package repository

import (
	"context"
	"iter"
)

// Pages streams all pages of find, from q.After on. It is for adapters, as their Each.
func Pages[E any](ctx context.Context, find func(context.Context, Query[E]) (Page[E], error),
	q Query[E]) iter.Seq2[E, error] {
	return func(yield func(E, error) bool) {
		q := q // it may be ranged over again
		for {
			page, err := find(ctx, q)
			if err != nil {
				var zero E
				yield(zero, err)
				return
			}
			for _, e := range page.Items {
				if !yield(e, nil) {
					return
				}
			}
			if page.Next == "" {
				return
			}
			q.After, q.Offset = page.Next, 0
		}
	}
}
