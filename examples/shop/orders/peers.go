package orders

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/sillar-go/sillar/authn/authngrpc"
	"github.com/sillar-go/sillar/breaker/breakergrpc"
	"github.com/sillar-go/sillar/breaker/breakerhttp"
	"github.com/sillar-go/sillar/examples/shop/internal/platform"
	"github.com/sillar-go/sillar/examples/shop/users/userpb"
	"github.com/sillar-go/sillar/observability/grpcotel"
)

// peers holds the clients of the services that orders calls.
type peers struct {
	users     userpb.UserServiceClient
	products  *platform.Peer
	inventory *platform.Peer
	payments  *platform.Peer
}

func newPeers(s *platform.Service) (*peers, error) {
	cfg, err := s.BreakerConfig("users-grpc")
	if err != nil {
		return nil, err
	}
	guard, err := breakergrpc.New(breakergrpc.Config{Breaker: cfg, Propagator: s.Tel.Propagator,
		Idempotent: func(method string) bool { return method == userpb.UserService_GetUser_FullMethodName }})
	if err != nil {
		return nil, err
	}
	security, err := s.ServiceTLS.GRPCClient(s.Peers.UsersGRPC)
	if err != nil {
		return nil, err
	}
	target, network := s.GRPCTarget(s.Peers.UsersGRPC)
	conn, err := grpc.NewClient(target, append(slices.Concat(guard.DialOptions(), grpcotel.Client(s.Tel), network),
		grpc.WithTransportCredentials(security),
		grpc.WithPerRPCCredentials(authngrpc.PerRPCInsecure(s.Guard.Token)),
		// Without pings a connection that has gone silent is used until TCP gives up, which takes 15 minutes.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second,
			PermitWithoutStream: true}))...)
	if err != nil {
		return nil, err
	}
	s.OnClose("users-grpc", func(context.Context) error { return conn.Close() })
	products, err1 := s.Peer("products", s.Peers.Products)
	inventory, err2 := s.Peer("inventory", s.Peers.Inventory)
	payments, err3 := s.Peer("payments", s.Peers.Payments)
	return &peers{userpb.NewUserServiceClient(conn), products, inventory, payments}, errors.Join(err1, err2, err3)
}

// verifyUser asks the users service whether the user still exists.
func (p *peers) verifyUser(ctx context.Context, id string) error {
	_, err := p.users.GetUser(ctx, &userpb.GetUserRequest{UserId: id})
	switch status.Code(err) {
	case codes.OK:
		return nil
	case codes.NotFound:
		return platform.Fail(http.StatusForbidden, "no-such-user", "the user of the token does not exist any more")
	case codes.Canceled:
		return context.Canceled
	default:
		return errors.Join(errUnavailable("users"), err)
	}
}

func errUnavailable(name string) error {
	return platform.Fail(http.StatusServiceUnavailable, "unavailable", "the "+name+" service does not answer: try again")
}

// line is a product and how many of it.
type line struct {
	ProductID string `json:"product_id" minLength:"1" maxLength:"64"`
	Quantity  int64  `json:"quantity" minimum:"1" maximum:"1000"`
}

func lines(items []Item) []line {
	out := make([]line, len(items))
	for i, it := range items {
		out[i] = line{it.ProductID, it.Quantity}
	}
	return out
}

type linesBody struct {
	Items []line `json:"items"`
}

// priced is what products says about lines.
type priced struct {
	Available  bool   `json:"available"`
	Items      []Item `json:"items"`
	TotalCents int64  `json:"total_cents"`
}

// price asks products for names and prices; values from the client are ignored.
func (p *peers) price(ctx context.Context, want []line) (priced, error) {
	got, err := platform.Send[priced](ctx, p.products, "api/v1/products/check", linesBody{want}, "")
	var res *breakerhttp.ResponseError
	if errors.As(err, &res) && res.Status == http.StatusUnprocessableEntity && res.Problem != nil {
		return got, platform.Fail(http.StatusUnprocessableEntity, "validation", res.Problem.Detail, res.Problem.Errors...)
	}
	return got, err
}
