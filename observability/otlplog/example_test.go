package otlplog_test

import (
	"context"
	"fmt"
	"os"

	"github.com/sillar-go/sillar/observability/otlplog"
)

func Example() {
	os.Unsetenv("OTEL_LOGS_EXPORTER")
	logs, err := otlplog.FromEnv(context.Background(), otlplog.Config{Service: "orders"})
	fmt.Println(len(logs.Handlers()), err) // for observability.Config.LogHandlers
	// Output: 0 <nil>
}
