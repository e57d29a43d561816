package users

import (
	"context"
	"errors"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/authn/authngrpc"
	"github.com/sillar-go/sillar/examples/shop/internal/platform"
	"github.com/sillar-go/sillar/examples/shop/users/userpb"
	"github.com/sillar-go/sillar/observability/grpcotel"
	"github.com/sillar-go/sillar/repository"
)

// rpc is the gRPC side. It uses the same commands and queries as HTTP does.
type rpc struct {
	userpb.UnimplementedUserServiceServer
	c *Commands
	q *Queries
	s *platform.Service
}

// serveGRPC listens at once, so that the address is known, and serves when the service runs. Only the shop's services
// may call; health and reflection are open.
func serveGRPC(s *platform.Service, c *Commands, q *Queries) error {
	l, err := s.Listen(s.GRPCAddr)
	if err != nil {
		return err
	}
	open := authngrpc.Public(healthpb.Health_Check_FullMethodName, healthpb.Health_List_FullMethodName)
	openStreams := authngrpc.Public(healthpb.Health_Watch_FullMethodName,
		"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
		"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
	need := authngrpc.Need(authn.AnyRole(platform.RoleService))
	server := grpc.NewServer(append(grpcotel.Server(s.Tel),
		grpc.Creds(s.ServiceTLS.GRPCServer()),
		grpc.ChainUnaryInterceptor(authngrpc.Unary(s.Guard.Services(), open, need)),
		grpc.ChainStreamInterceptor(authngrpc.Stream(s.Guard.Services(), openStreams, need)),
		grpc.MaxRecvMsgSize(1<<20),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.ConnectionTimeout(10*time.Second))...)
	userpb.RegisterUserServiceServer(server, &rpc{c: c, q: q, s: s})
	healthy := health.NewServer()
	healthpb.RegisterHealthServer(server, healthy)
	reflection.Register(server)
	s.Go("grpc", func(ctx context.Context) error {
		ended := make(chan error, 1)
		go func() { ended <- server.Serve(l) }()
		select {
		case err := <-ended:
			return err
		case <-ctx.Done():
		}
		healthy.Shutdown()
		force := time.AfterFunc(5*time.Second, server.Stop)
		defer force.Stop()
		server.GracefulStop()
		return nil
	})
	s.OnClose("grpc", func(context.Context) error {
		server.Stop()
		_ = l.Close() // which is open still where nothing was served
		return nil
	})
	s.Peers.UsersGRPC = l.Addr().String()
	return nil
}

func message(u User) *userpb.User {
	return &userpb.User{Id: u.ID, Username: u.Username, Email: u.Email, Roles: u.Roles,
		CreatedAt: timestamppb.New(u.CreatedAt), UpdatedAt: timestamppb.New(u.UpdatedAt)}
}

// fail gives an error its status, and hides the text of unknown errors.
func (r *rpc) fail(ctx context.Context, err error) error {
	var p *platform.Problem
	switch {
	case errors.As(err, &p):
		var fields []*errdetails.BadRequest_FieldViolation
		for _, f := range p.Errors {
			fields = append(fields, &errdetails.BadRequest_FieldViolation{Field: f.Field, Description: f.Detail})
		}
		st := status.New(codes.InvalidArgument, p.Detail)
		if with, err := st.WithDetails(&errdetails.BadRequest{FieldViolations: fields}); err == nil {
			st = with
		}
		return st.Err()
	case errors.Is(err, repository.ErrNotFound):
		return status.Error(codes.NotFound, "there is no such user")
	case errors.Is(err, repository.ErrUnique):
		return status.Error(codes.AlreadyExists, "username or email is taken")
	case errors.Is(err, repository.ErrConflict):
		return status.Error(codes.Aborted, "the user was changed by another meanwhile")
	case errors.Is(err, repository.ErrCursor), errors.Is(err, repository.ErrQuery):
		return status.Error(codes.InvalidArgument, "limit, offset or page_token is not valid")
	case ctx.Err() != nil:
		return status.FromContextError(ctx.Err()).Err()
	}
	r.s.Log.ErrorContext(ctx, "a call failed", "error", err)
	return status.Error(codes.Internal, "something went wrong here")
}

func (r *rpc) GetUser(ctx context.Context, in *userpb.GetUserRequest) (*userpb.User, error) {
	u, err := r.q.Get.Handle(ctx, GetUser{ID: in.GetUserId()})
	if err != nil {
		return nil, r.fail(ctx, err)
	}
	return message(u), nil
}

func (r *rpc) CreateUser(ctx context.Context, in *userpb.CreateUserRequest) (*userpb.User, error) {
	u, err := r.c.Create.Handle(ctx, CreateUser{Username: in.GetUsername(), Email: in.GetEmail(),
		Password: in.GetPassword()})
	if err != nil {
		return nil, r.fail(ctx, err)
	}
	return message(u), nil
}

func (r *rpc) UpdateUser(ctx context.Context, in *userpb.UpdateUserRequest) (*userpb.User, error) {
	u, err := r.c.Update.Handle(ctx, UpdateUser{ID: in.GetUserId(), Username: in.Username, Email: in.Email})
	if err != nil {
		return nil, r.fail(ctx, err)
	}
	return message(u), nil
}

func (r *rpc) DeleteUser(ctx context.Context, in *userpb.DeleteUserRequest) (*userpb.DeleteUserResponse, error) {
	if _, err := r.c.Delete.Handle(ctx, DeleteUser{ID: in.GetUserId()}); err != nil {
		return nil, r.fail(ctx, err)
	}
	return &userpb.DeleteUserResponse{Success: true}, nil
}

func (r *rpc) ListUsers(ctx context.Context, in *userpb.ListUsersRequest) (*userpb.ListUsersResponse, error) {
	if in.GetLimit() < 0 || in.GetLimit() > 200 || in.GetOffset() < 0 || strings.ContainsAny(in.GetPageToken(), "\x00\n") {
		return nil, status.Error(codes.InvalidArgument, "limit must be 0 to 200, offset at least 0")
	}
	page, err := r.q.List.Handle(ctx, ListUsers{Limit: int(in.GetLimit()), Offset: int(in.GetOffset()),
		After: in.GetPageToken()})
	if err != nil {
		return nil, r.fail(ctx, err)
	}
	out := &userpb.ListUsersResponse{Total: page.Total, NextPageToken: page.Next}
	for _, u := range page.Items {
		out.Users = append(out.Users, message(u))
	}
	return out, nil
}
