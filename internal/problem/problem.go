// Package problem writes errors to HTTP clients as application/problem+json (RFC 9457), with the correlation id and
// the fields that were wrong, and with nothing else: no driver's text and no stack trace.
package problem

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/sillar-go/sillar/internal/correlation"
)

// ContentType is the media type of a problem document.
const ContentType = "application/problem+json"

// TypeBase is the prefix of every type URI; a slug follows.
const TypeBase = "https://sillar.dev/problems/"

// FieldError says what is wrong with one field of a request.
type FieldError struct {
	// Field is the path of the field, such as "items[0].quantity".
	Field string `json:"field"`
	// Detail says what is wrong with it, for a person.
	Detail string `json:"detail"`
}

// Problem is a problem document.
type Problem struct {
	Type          string       `json:"type"`
	Title         string       `json:"title"`
	Status        int          `json:"status"`
	Detail        string       `json:"detail,omitempty"`
	Instance      string       `json:"instance,omitempty"`
	CorrelationID string       `json:"correlation_id,omitempty"`
	Errors        []FieldError `json:"errors,omitempty"`
}

// New makes a problem of the given status. slug completes the type URI and is stable: clients may compare it.
// detail is for a person, and must hold nothing that a stranger may not know.
func New(status int, slug, detail string) *Problem {
	return &Problem{Type: TypeBase + slug, Title: http.StatusText(status), Status: status, Detail: detail}
}

// With adds a field error and returns p.
func (p *Problem) With(field, detail string) *Problem {
	p.Errors = append(p.Errors, FieldError{Field: field, Detail: detail})
	return p
}

// maxFields bounds how many fields Error names: the document may have been sent to another server.
const maxFields = 5

// Error implements error.
func (p *Problem) Error() string {
	s := "problem: " + strconv.Itoa(p.Status) + " " + p.Title + ": " + p.Detail
	for i, f := range p.Errors {
		if i == maxFields {
			return s + ", and more"
		}
		s += []string{": ", ", "}[min(i, 1)] + f.Field + ": " + f.Detail
	}
	return s
}

// GetStatus returns the HTTP status; huma asks for it.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType returns, for huma, the media type of the document.
func (p *Problem) ContentType(string) string { return ContentType }

// Write sends p, completed with the correlation id of ctx. p itself is not changed.
func (p *Problem) Write(ctx context.Context, w http.ResponseWriter) {
	doc := *p
	if doc.CorrelationID == "" {
		doc.CorrelationID = correlation.From(ctx)
	}
	body, err := json.Marshal(&doc)
	if err != nil { // strings and ints always encode
		panic(err)
	}
	h := w.Header()
	h.Del("Content-Length")
	h.Set("Content-Type", ContentType)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(doc.Status)
	_, _ = w.Write(body) // the client may have left; the error is of no other use
}

// Write sends a problem made of the arguments, as New takes them.
func Write(ctx context.Context, w http.ResponseWriter, status int, slug, detail string) {
	New(status, slug, detail).Write(ctx, w)
}
