package gateway

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// responseBody frees what its attempt holds when it has been read or closed.
type responseBody struct {
	io.ReadCloser
	attempt *attempt
	idle    *progress
}

func (b *responseBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.idle.touch()
	if err != nil {
		b.idle.stop()
		b.attempt.release()
	}
	return n, err
}

func (b *responseBody) Close() error {
	b.idle.stop()
	err := b.ReadCloser.Close()
	b.attempt.release()
	return err
}

// progress is a timer that starts again with every sign of life. A nil one does nothing.
type progress struct {
	mu    sync.Mutex
	timer *time.Timer
	after time.Duration
	over  bool
}

// start makes p call fn after a time without a sign of life, and returns it, or nil when the time is 0.
func (p *progress) start(after time.Duration, fn func()) *progress {
	if after <= 0 {
		return nil
	}
	p.mu.Lock() // fn may want p at once
	defer p.mu.Unlock()
	p.timer, p.after = time.AfterFunc(after, fn), after
	return p
}

func (p *progress) touch() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.over {
		p.timer.Reset(p.after)
	}
}

// stop stops the timer for good, and reports whether it came before the timer's end.
func (p *progress) stop() bool {
	if p == nil {
		return true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	return p.timer.Stop()
}

// requestBody is the client's body. It is never kept: an attempt that has read from it is the last one.
type requestBody struct {
	max       int64
	client    http.ResponseWriter
	rc        io.ReadCloser // nil when there is none
	trailer   http.Header   // the client's, complete at the end of rc
	tooLarge  atomic.Bool
	broken    atomic.Bool // the client did not send what it announced
	malformed atomic.Bool // and it has sent all
	reading   atomic.Bool // a transport waits for the client
	stalled   atomic.Bool // the client took too long
	ended     atomic.Bool // all of it was read

	mu      sync.Mutex
	touched bool
	read    int64
	current *attemptBody
}

// failed reports whether the client, not the service, is why there is no answer.
func (b *requestBody) failed() bool { return b.tooLarge.Load() || b.broken.Load() || b.stalled.Load() }

// unfinished reports whether a part of the body was sent to the instance, and a part was not. A service that refuses a
// body may close the connection while it is sent, so an error then says nothing about the instance.
func (b *requestBody) unfinished() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.touched && !b.ended.Load()
}

// cutStalled ends a wait for the client. It is the client's failure then, else slow clients could open the breaker; and
// net/http's transport does not return before its read of the body does.
func (b *requestBody) cutStalled() {
	if b.reading.Load() {
		b.stalled.Store(true)
		_ = http.NewResponseController(b.client).SetReadDeadline(time.Unix(1, 0))
	}
}

// attempt returns the body for one attempt, at whose end trailer is filled.
func (b *requestBody) attempt(timer *progress, trailer http.Header) io.ReadCloser {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.current = &attemptBody{b: b, timer: timer, trailer: trailer}
	return b.current
}

// revoke takes the body from the attempt that has it, and reports whether another one may have it.
func (b *requestBody) revoke() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.current = nil
	return !b.touched
}

// attemptBody is the body in the hands of a transport, which may hold on to it after its answer.
type attemptBody struct {
	b       *requestBody
	timer   *progress
	trailer http.Header // those that may be sent
}

func (a *attemptBody) Read(p []byte) (int, error) {
	b := a.b
	b.mu.Lock()
	if b.current != a {
		b.mu.Unlock()
		return 0, errRevoked
	}
	b.touched = true
	b.mu.Unlock()
	b.reading.Store(true)
	n, err := b.rc.Read(p)
	b.reading.Store(false)
	a.timer.touch()
	if b.read += int64(n); b.max > 0 && b.read > b.max {
		b.tooLarge.Store(true)
		return 0, errTooLarge
	}
	if err != nil && err != io.EOF {
		// HTTP/2 has no error of its own for a body that is shorter than its length.
		b.malformed.Store(strings.Contains(err.Error(), "declared a Content-Length"))
		b.broken.Store(true)
	}
	if err == io.EOF {
		b.ended.Store(true)
		for name := range a.trailer {
			if v := b.trailer[name]; len(v) > 0 {
				a.trailer[name] = v
			}
		}
	}
	return n, err
}

// Close does nothing: the server closes the client's body, and another attempt may need it.
func (a *attemptBody) Close() error { return nil }

// clientBody is the body of a request that knows whether it was read to its end.
type clientBody struct {
	io.ReadCloser
	ended atomic.Bool
}

func (b *clientBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		b.ended.Store(true)
	}
	return n, err
}
