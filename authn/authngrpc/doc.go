// Package authngrpc has interceptors that authenticate gRPC calls as authn.Require does HTTP requests, and credentials
// that send a token with each call.
//
//	srv := grpc.NewServer(
//		grpc.UnaryInterceptor(authngrpc.Unary(v, authngrpc.Public(healthpb.Health_Check_FullMethodName))),
//		grpc.StreamInterceptor(authngrpc.Stream(v)))
//	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(creds),
//		grpc.WithPerRPCCredentials(authngrpc.PerRPC(token)))
//
// Handlers find the user with authn.FromContext. A call without a token, or with a bad one, ends with Unauthenticated,
// one that lacks a role with PermissionDenied, and with Unavailable when tokens cannot be verified now. The status
// gives no reason.
package authngrpc
