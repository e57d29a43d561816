package products

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"

	"github.com/sillar-go/sillar/breaker/breakerhttp"
	"github.com/sillar-go/sillar/examples/shop/internal/platform"
)

// Inventory is the port to who knows what is in stock.
type Inventory interface {
	// Available returns how many of each product may be ordered at this moment.
	Available(ctx context.Context, items []Item) (map[string]int64, error)
	// Reserve promises items to an order, once for each key.
	Reserve(ctx context.Context, key, orderID string, items []Item) (Reservation, error)
}

// Reservation is what inventory has promised.
type Reservation struct {
	ReservationID string `json:"reservation_id"`
	Status        string `json:"status"`
}

// inventory asks the inventory service.
type inventory struct {
	peer *platform.Peer
	log  *slog.Logger
}

type itemsBody struct {
	Items []Item `json:"items"`
}

func (v inventory) Available(ctx context.Context, items []Item) (map[string]int64, error) {
	got, err := platform.Send[struct {
		Items []struct {
			ProductID string `json:"product_id"`
			Available int64  `json:"available"`
		} `json:"items"`
	}](ctx, v.peer, "api/v1/inventory/check", itemsBody{items}, "")
	if err != nil {
		return nil, v.verdict(ctx, err)
	}
	out := map[string]int64{}
	for _, it := range got.Items {
		out[it.ProductID] = it.Available
	}
	return out, nil
}

func (v inventory) Reserve(ctx context.Context, key, orderID string, items []Item) (Reservation, error) {
	got, err := platform.Send[Reservation](ctx, v.peer, "api/v1/inventory/reserve", struct {
		OrderID string `json:"order_id"`
		itemsBody
	}{orderID, itemsBody{items}}, key)
	return got, v.verdict(ctx, err)
}

// verdict passes on what inventory refused, in its words. What else it said goes to the log alone.
func (v inventory) verdict(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	var res *breakerhttp.ResponseError
	if errors.As(err, &res) && res.Problem != nil && (res.Status == http.StatusConflict ||
		res.Status == http.StatusUnprocessableEntity) {
		slug := res.Problem.Type[strings.LastIndexByte(res.Problem.Type, '/')+1:]
		return platform.Fail(res.Status, slug, res.Problem.Detail, res.Problem.Errors...)
	}
	v.log.WarnContext(ctx, "inventory did not answer", "error", err)
	return platform.Fail(http.StatusServiceUnavailable, "unavailable", "the inventory service does not answer: try again")
}
