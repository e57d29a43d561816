package orders

import (
	"context"
	"errors"
	"time"

	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/eventstore"
)

// Row is an order in the read model, for lists. Its id is the order's.
type Row struct {
	repository.Meta
	UserID     string
	Status     Status
	TotalCents int64
	Items      []Item
	Reason     string
	PlacedAt   time.Time
}

var (
	rowUser   = repository.Text(func(r *Row) *string { return &r.UserID })
	rowStatus = repository.Eq(func(r *Row) *Status { return &r.Status })
	rowPlaced = repository.Time(func(r *Row) *time.Time { return &r.PlacedAt })
)

// project keeps the read model up to date. It may lag behind by moments.
func project(orders *eventstore.Aggregate[Order, Event],
	rows repository.Repository[Row]) func(context.Context, eventstore.Recorded) error {
	return func(ctx context.Context, r eventstore.Recorded) error {
		e, err := orders.Decode(r)
		if err != nil {
			return err
		}
		id := e.head().OrderID
		change := func(_ context.Context, row *Row) error {
			o := evolve(Order{ID: id, UserID: row.UserID, Status: row.Status, TotalCents: row.TotalCents, Items: row.Items,
				Reason: row.Reason, CreatedAt: row.PlacedAt}, e)
			row.UserID, row.Status, row.TotalCents, row.Items, row.Reason, row.PlacedAt = o.UserID, o.Status, o.TotalCents,
				o.Items, o.Reason, o.CreatedAt
			return nil
		}
		_, err = rows.Update(ctx, id, change)
		if errors.Is(err, repository.ErrNotFound) {
			row := Row{Meta: repository.Meta{ID: id}}
			_ = change(ctx, &row)
			_, err = rows.Create(ctx, row)
		}
		return err
	}
}
