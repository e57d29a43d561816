// Package breakertest injects faults into HTTP calls, for tests of what a program does about them.
//
//	client := &http.Client{Transport: breakertest.Lossy(nil, seed, 0.1)}
//
// Half of the faults fail a request before it is sent, half of them lose its response: the server has done what it was
// asked.
package breakertest

import (
	"fmt"
	"io"
	"net/http"

	"github.com/sillar-go/sillar/internal/faultdraw"
)

// ErrInjected is the error of the faults.
var ErrInjected = faultdraw.ErrInjected

// Lossy returns a transport over base (nil means http.DefaultTransport) that fails a part rate of the requests, such as
// 0.1. The faults are those of the seed: the n-th request of a method to a path always has the same one. It is safe for
// concurrent use.
func Lossy(base http.RoundTripper, seed uint64, rate float64) http.RoundTripper {
	if base == nil {
		base = http.DefaultTransport
	}
	return &lossy{base, faultdraw.New(seed, rate)}
}

type lossy struct {
	base http.RoundTripper
	draw *faultdraw.Draw
}

// RoundTrip implements http.RoundTripper.
func (l *lossy) RoundTrip(r *http.Request) (*http.Response, error) {
	place := r.Method + " " + r.URL.Path
	fault := l.draw.At(place)
	if fault == faultdraw.Before {
		if r.Body != nil {
			_ = r.Body.Close()
		}
		return nil, fmt.Errorf("%s: the request is not sent: %w", place, ErrInjected)
	}
	res, err := l.base.RoundTrip(r)
	if err != nil || fault == faultdraw.None {
		return res, err
	}
	_, _ = io.Copy(io.Discard, res.Body) // the server has answered in full
	_ = res.Body.Close()
	return nil, fmt.Errorf("%s: the response is lost: %w", place, ErrInjected)
}
