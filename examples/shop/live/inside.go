package live

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/sillar-go/sillar/examples/shop/internal/platform"
)

// inside asks the services of this process as an operator does, without a connection and past their meters and logs:
// what is watched is not changed by it.
type inside struct {
	services map[string]*platform.Service
	guard    *platform.Guard // whose token it shows
}

func (in inside) get(ctx context.Context, service, path string, into any) error {
	return in.do(ctx, "GET", service, path, nil, into)
}

func (in inside) put(ctx context.Context, service, path string, body any) error {
	return in.do(ctx, "PUT", service, path, body, nil)
}

func (in inside) do(ctx context.Context, method, service, path string, body, into any) error {
	token, err := in.guard.OperatorToken(ctx)
	if err != nil {
		return err
	}
	var r io.Reader = http.NoBody
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return err
		}
		r = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, path, r)
	if err != nil {
		return err
	}
	req.RequestURI = path
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	w := &answer{header: http.Header{}, status: http.StatusOK}
	in.services[service].Mux.ServeHTTP(w, req)
	if w.status != http.StatusOK {
		return fmt.Errorf("%s %s%s: status %d: %.300s", method, service, path, w.status, w.body.Bytes())
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(w.body.Bytes(), into)
}

// answer is a http.ResponseWriter that keeps what it is given.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (a *answer) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) { a.status = status }

// Write implements http.ResponseWriter.
func (a *answer) Write(p []byte) (int, error) { return a.body.Write(p) }
