package problem_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sillar-go/sillar/internal/correlation"
	"github.com/sillar-go/sillar/internal/problem"
)

func TestWriteSendsProblemJSON(t *testing.T) {
	p := problem.New(http.StatusUnprocessableEntity, "validation", "the order is not valid").With("items[0].quantity",
		"must be at least 1")
	rec := httptest.NewRecorder()
	p.Write(correlation.With(t.Context(), "c-1"), rec)
	if rec.Code != 422 || rec.Header().Get("Content-Type") != "application/problem+json" {
		t.Fatalf("status %d, type %q", rec.Code, rec.Header().Get("Content-Type"))
	}
	var got map[string]any
	if err := json.Unmarshal(rec.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"type": "https://sillar.dev/problems/validation", "title": "Unprocessable Entity", "status": 422.0,
		"detail": "the order is not valid", "correlation_id": "c-1",
		"errors": []any{map[string]any{"field": "items[0].quantity", "detail": "must be at least 1"}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("document (-want +got):\n%s", d)
	}
	if p.CorrelationID != "" {
		t.Fatal("Write changed the problem, which may be shared")
	}
}

func TestErrorNamesTheFields(t *testing.T) {
	p := problem.New(422, "validation", "the request is not valid")
	for i, want := range []string{"", ": f0: no", ": f0: no, f1: no"} {
		if got := p.Error(); got != "problem: 422 Unprocessable Entity: the request is not valid"+want {
			t.Errorf("%d fields: %s", i, got)
		}
		p.With(fmt.Sprint("f", i), "no")
	}
	for range 1000 {
		p.With("many", "no")
	}
	if got := p.Error(); !strings.HasSuffix(got, ", many: no, and more") || len(got) > 200 {
		t.Errorf("many fields: %s", got)
	}
}
