package kafka_test

import (
	"context"
	"fmt"
	"os"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/kafka"
)

func Example() {
	ctx := context.Background()
	broker, err := kafka.New(os.Getenv("KAFKA_URL"), kafka.Config{Source: "orders", Partitions: 12, Replicas: 3})
	if err != nil {
		fmt.Println(err) // a URL that does not parse; it is not quoted
		return
	}
	defer broker.Close()
	router := messaging.Must(messaging.NewRouter(broker, messaging.RouterConfig{}))
	group := router.Group("notifications", messaging.GroupConfig{Concurrency: 16, Ordered: true})
	messaging.HandleRaw(group, "orders.*", func(_ context.Context, m messaging.Message[[]byte]) error {
		fmt.Println(m.Type, string(m.Data))
		return nil
	})
	if err := router.Run(ctx); err != nil {
		fmt.Println(err)
	}
}
