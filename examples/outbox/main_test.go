package main

import (
	"strings"
	"testing"
)

func TestOutboxExampleOutput(t *testing.T) {
	var out strings.Builder
	if err := run(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	const want = "lamp: out of stock\nchair: <nil>\ninvoice for: chair\ninvoices in the database: 1\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", &out, want)
	}
}
