package problem

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
)

// DefaultMaxBody is the bound of Decode where none is given, in bytes.
const DefaultMaxBody = 1 << 20

// Decode reads a JSON body of up to maxBody bytes into v; 0 means DefaultMaxBody. The error is a *Problem: 415 for
// another content type, 413 for a longer body, 400 for what is no JSON or has something behind it, and 422 that names
// the field for a value of another type and for a field that v does not have.
func Decode(w http.ResponseWriter, r *http.Request, v any, maxBody int64) error {
	if maxBody <= 0 {
		maxBody = DefaultMaxBody
	}
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "application/json" && !strings.HasSuffix(media, "+json") {
		return New(http.StatusUnsupportedMediaType, "media-type", "the body must be application/json")
	}
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	err = d.Decode(v)
	if err == nil {
		if _, err = d.Token(); errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = errors.New("more than one value")
		}
	}
	return decodeProblem(err, maxBody)
}

// decodeProblem says what was wrong with the body.
func decodeProblem(err error, maxBody int64) error {
	var (
		tooLong *http.MaxBytesError
		typ     *json.UnmarshalTypeError
	)
	switch name, unknown := strings.CutPrefix(err.Error(), "json: unknown field "); {
	case errors.As(err, &tooLong):
		return New(http.StatusRequestEntityTooLarge, "too-large", fmt.Sprintf("the body has more than %d bytes", maxBody))
	case errors.As(err, &typ):
		return New(http.StatusUnprocessableEntity, "validation", "the request is not valid").
			With(typ.Field, fmt.Sprintf("is a %s", typ.Value))
	case unknown:
		return New(http.StatusUnprocessableEntity, "validation", "the request is not valid").
			With(strings.Trim(name, `"`), "is unknown")
	case errors.Is(err, io.EOF):
		return New(http.StatusBadRequest, "bad-request", "the body is empty")
	}
	return New(http.StatusBadRequest, "bad-request", "the body is no JSON")
}
