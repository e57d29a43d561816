package problem_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sillar-go/sillar/internal/correlation"
	"github.com/sillar-go/sillar/internal/problem"
)

func TestWrite(t *testing.T) {
	p := problem.New(http.StatusUnprocessableEntity, "validation", "the order is not valid").With("items[0].quantity", "must be at least 1")
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
