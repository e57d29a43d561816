// Package httpcheck recognises failures of an HTTP exchange that arise on this side, from the request or from our own
// limits, from those that say something about the server.
package httpcheck

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
)

// Request returns an error for a request that net/http refuses before it has reached the server: because of its method,
// address, headers or trailers.
func Request(req *http.Request) error {
	switch {
	case req.URL == nil:
		return errors.New("the request has no URL")
	case req.URL.Scheme != "http" && req.URL.Scheme != "https":
		return fmt.Errorf("unsupported protocol scheme %q", req.URL.Scheme)
	case req.URL.Host == "":
		return errors.New("the URL has no host")
	case req.Method != "" && !IsToken(req.Method):
		return errors.New("the method is no token")
	case hasControl(req.URL.RequestURI()) || strings.Contains(req.URL.RequestURI(), " "):
		return errors.New("the URL contains a control character")
	case hasControl(req.Host) || strings.Contains(req.Host, " "):
		return errors.New("the host contains a control character")
	}
	if err := header("header", req.Header); err != nil {
		return err
	}
	for name := range req.Trailer {
		switch http.CanonicalHeaderKey(name) {
		case "Transfer-Encoding", "Trailer", "Content-Length":
			return fmt.Errorf("the trailer %q is not allowed", cut(name))
		}
	}
	return header("trailer", req.Trailer)
}

func header(kind string, h http.Header) error {
	for name, values := range h {
		if !IsToken(name) {
			return fmt.Errorf("the name of the %s %q is no token", kind, cut(name))
		}
		for _, v := range values {
			if hasControl(v) {
				return fmt.Errorf("the value of the %s %q contains a control character", kind, cut(name))
			}
		}
	}
	return nil
}

func cut(name string) string { return name[:min(len(name), 64)] }

// IsToken reports whether s is a token of RFC 9110, section 5.6.2.
func IsToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~",
			c) >= 0) {
			return false
		}
	}
	return s != ""
}

// hasControl reports a control character other than a tab.
func hasControl(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return true
		}
	}
	return false
}

// local are the beginnings of the errors with which net/http refuses a request, or ends an exchange because of a limit
// of ours. It has no types for them. The tests of breakerhttp and gateway provoke them.
var local = []string{
	"http: invalid ", "net/http: invalid ", "http2: invalid ", "invalid Trailer key", "http: nil Request",
	"http: no Host in request URL",
	"unsupported protocol scheme", "net/http: can't write control character", "http: ContentLength=",
	"http: Request.ContentLength=",
	"http2: request header list larger than peer's advertised limit",
	"http2: request body larger than specified content length",
	"net/http: server response headers exceeded", "http2: response header list larger than advertised limit",
	"connection error: COMPRESSION_ERROR", // what HTTP/2 makes of a response header above our limit
}

// Local reports whether a transport's error is about the request or about a limit of ours, and so says nothing about
// the server.
func Local(err error) bool {
	for ; err != nil; err = errors.Unwrap(err) {
		text := err.Error()
		for _, begin := range local {
			if strings.HasPrefix(text, begin) {
				return true
			}
		}
	}
	return false
}

// Body is the body of a request that remembers whether it failed.
type Body struct {
	io.ReadCloser
	length int64 // announced; negative: unknown
	read   atomic.Int64
	failed atomic.Bool
}

// Watch returns body as a Body. length is the ContentLength of the request; for 0 beside a body it is unknown.
func Watch(body io.ReadCloser, length int64) *Body {
	if length == 0 {
		length = -1
	}
	return &Body{ReadCloser: body, length: length}
}

// Read implements io.Reader.
func (b *Body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	read := b.read.Add(int64(n))
	if err != nil && err != io.EOF || b.length >= 0 && (read > b.length || err == io.EOF && read != b.length) {
		b.failed.Store(true)
	}
	return n, err
}

// Failed reports whether the body could not be read, or is of another length than the request announced: the exchange
// then failed because of its sender. A nil Body never fails.
func (b *Body) Failed() bool { return b != nil && b.failed.Load() }
