package otlp_test

import (
	"context"
	"fmt"
	"os"

	"github.com/sillar-go/sillar/observability/otlp"
)

func Example() {
	os.Unsetenv("OTEL_EXPORTER_OTLP_ENDPOINT")
	exporters, err := otlp.FromEnv(context.Background()) // for observability.Config.SpanExporters
	fmt.Println(len(exporters), err)
	// Output: 0 <nil>
}
