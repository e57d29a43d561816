package breakergrpc_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/sillar-go/sillar/breaker"
	"github.com/sillar-go/sillar/breaker/breakergrpc"
)

func ExampleDialOptions() {
	srv := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(srv, health.NewServer())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go func() { _ = srv.Serve(l) }()

	opts := append(breakergrpc.DialOptions(breakergrpc.Config{
		Breaker:    breaker.Config{Timeout: 2 * time.Second, Failures: 1, Retry: breaker.Retry{Attempts: 3}},
		Idempotent: func(method string) bool { return method == "/grpc.health.v1.Health/Check" },
	}), grpc.WithTransportCredentials(insecure.NewCredentials()))
	conn, err := grpc.NewClient(l.Addr().String(), opts...)
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	client := grpc_health_v1.NewHealthClient(conn)

	res, err := client.Check(context.Background(), &grpc_health_v1.HealthCheckRequest{})
	fmt.Println(res.GetStatus(), err)
	srv.Stop()
	_, err = client.Check(context.Background(), &grpc_health_v1.HealthCheckRequest{})
	fmt.Println(status.Code(err) == codes.Unavailable, breaker.IsRejection(err))
	_, err = client.Check(context.Background(), &grpc_health_v1.HealthCheckRequest{})
	fmt.Println(status.Code(err) == codes.Unavailable, errors.Is(err, breaker.ErrOpen))
	// Output:
	// SERVING <nil>
	// true false
	// true true
}
