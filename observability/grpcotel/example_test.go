package grpcotel_test

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/sillar-go/sillar/observability"
	"github.com/sillar-go/sillar/observability/grpcotel"
)

func Example() {
	tel := observability.Must(observability.New(context.Background(), observability.Config{Service: "users"}))
	server := grpc.NewServer(grpcotel.Server(tel)...)
	defer server.Stop()
	conn, err := grpc.NewClient("orders:50051",
		append(grpcotel.Client(tel), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		panic(err)
	}
	defer func() { _ = conn.Close() }()
	fmt.Println(conn.Target())
	// Output: orders:50051
}
