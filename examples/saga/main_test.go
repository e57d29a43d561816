package main

import (
	"os"
	"strings"
	"testing"
)

// TestMain is main in the process that is killed.
func TestMain(m *testing.M) {
	if os.Getenv("SAGA_STOCK") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestSagaExampleOutput(t *testing.T) {
	var out strings.Builder
	if err := run(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	const want = "the first process: exit status 3\norder-1: <nil>\n" +
		"order-2: saga: place-order order-2 is compensated: step pay: card declined\nlamps in stock: 9\nrugs in stock: 10\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", &out, want)
	}
}
