package benchmarks

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"

	"github.com/sillar-go/sillar/gateway"
)

type openapiItem struct {
	Body struct {
		ID    string            `json:"id" format:"uuid"`
		Tags  []string          `json:"tags,omitempty" maxItems:"10"`
		Links map[string]string `json:"links,omitempty"`
	}
}

// openapiService has a document as huma makes it, with names that the other services have too.
func openapiService(t *testing.T) string {
	mux := http.NewServeMux()
	cfg := huma.DefaultConfig("Items", "1.0.0")
	cfg.Components.SecuritySchemes = map[string]*huma.SecurityScheme{"bearer": {Type: "http", Scheme: "bearer"}}
	api := humago.New(mux, cfg)
	type in struct {
		ID    string `path:"id"`
		Limit int    `query:"limit" minimum:"1"`
	}
	for _, op := range []huma.Operation{
		{OperationID: "read", Method: "GET", Path: "/items/{id}", Security: []map[string][]string{{"bearer": {}}}},
		{OperationID: "change", Method: "PUT", Path: "/items/{id}", Security: []map[string][]string{{"bearer": {}}}},
		{OperationID: "list", Method: "GET", Path: "/"},
	} {
		if op.OperationID == "list" {
			huma.Register(api, op, func(context.Context, *struct{}) (*openapiItem, error) { return &openapiItem{}, nil })
			continue
		}
		huma.Register(api, op, func(context.Context, *in) (*openapiItem, error) { return &openapiItem{}, nil })
	}
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.URL
}

// The document that a gateway merges is valid by the schema of OpenAPI 3.1, and none of its references leads nowhere.
// It is here because a validator is nothing that those who import the gateway should have in their go.sum.
func TestMergedOpenAPIIsValid(t *testing.T) {
	gw := gateway.Must(gateway.New(gateway.Config{Anonymous: true, Title: "All", Logger: slog.New(slog.DiscardHandler),
		Routes: []gateway.Route{
			{Prefix: "/users", Upstreams: []string{openapiService(t)}},
			{Prefix: "/orders", Name: "the orders", Upstreams: []string{openapiService(t)}, Rewrite: "/items"},
			{Prefix: "/", Upstreams: []string{openapiService(t)}},
			{Prefix: "/gone", Upstreams: []string{"http://127.0.0.1:1"}},
		}}))
	t.Cleanup(gw.CloseIdleConnections)
	w := httptest.NewRecorder()
	gw.ServeHTTP(w, httptest.NewRequest("GET", "/openapi.json", nil))
	text, _ := io.ReadAll(w.Body)
	doc, err := libopenapi.NewDocument(text)
	if err != nil {
		t.Fatal(err, string(text))
	}
	model, err := doc.BuildV3Model()
	if err != nil {
		t.Fatal(err, string(text))
	}
	if n := model.Model.Paths.PathItems.Len(); n != 5 { // two of users, one under /orders, two of the root
		t.Errorf("%d paths: %s", n, text)
	}
	v, errs := validator.NewValidator(doc)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	if ok, errs := v.ValidateDocument(); !ok {
		for _, e := range errs {
			t.Errorf("%s: %s", e.Message, e.Reason)
			for _, s := range e.SchemaValidationErrors {
				t.Errorf("  %s", s.Reason)
			}
		}
		t.Log(string(text))
	}
}
