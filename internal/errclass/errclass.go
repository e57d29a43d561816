// Package errclass names the class of an error. Spans and metrics carry the class and never the text: drivers quote
// values in it, and a trace is read by more people, and kept longer, than the data that it would quote.
package errclass

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// Of returns the class of an error: timeout, canceled, or the Go type of its cause. There are as many as the program
// has types.
func Of(err error) string {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case errors.Is(err, context.Canceled):
		return "canceled"
	}
	return fmt.Sprintf("%T", cause(err))
}

// Record sets the status of a span, and error.type, where err is not nil.
func Record(span trace.Span, err error) {
	if err == nil || !span.IsRecording() {
		return
	}
	class := Of(err)
	span.SetAttributes(attribute.String("error.type", class))
	span.SetStatus(codes.Error, class)
}

// cause returns the innermost error that others wrap. When an error wraps several, the last one counts: packages put
// their sentinel first and the cause last.
func cause(err error) error {
	for {
		switch w := err.(type) { //nolint:errorlint // this walks the tree itself
		case interface{ Unwrap() error }:
			if w.Unwrap() == nil {
				return err
			}
			err = w.Unwrap()
		case interface{ Unwrap() []error }:
			all := w.Unwrap()
			if len(all) == 0 {
				return err
			}
			err = all[len(all)-1]
		default:
			return err
		}
	}
}
