package gateway

import (
	"bytes"
	"fmt"
	"log"
	"net"
	"sync"
	"time"
)

// rejectionLog logs requests that net/http refuses by itself: no handler and no hook sees them.
type rejectionLog struct {
	log *log.Logger // nil means the standard one

	mu       sync.Mutex
	next     time.Time // before it nothing is logged
	unlogged int       // rejections since the last line
}

// record logs one: the status line of the answer, and why the guard refused it, if it did.
func (r *rejectionLog) record(from net.Addr, answer, why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if now.Before(r.next) { // clients cannot fill the log
		r.unlogged++
		return
	}
	if why != "" {
		answer += ": " + why
	}
	to := r.log
	if to == nil {
		to = log.Default()
	}
	if r.unlogged > 0 {
		answer += fmt.Sprintf(" (and %d more before it)", r.unlogged)
	}
	to.Printf("gateway: what %s sent is no request: %s", from, answer)
	r.next, r.unlogged = now.Add(time.Second), 0
}

// ownHeader is the header of all answers that net/http makes of what is no request. Those of handlers have a Date.
const ownHeader = "\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"

// ownAnswer returns the status of an answer that net/http made of what is no request: "400 Bad Request", and what is
// wrong in words of its own.
func ownAnswer(p []byte) (status string, ok bool) {
	rest, ok := bytes.CutPrefix(p, []byte("HTTP/1.1 "))
	if !ok || len(rest) == 0 || rest[0] != '4' && rest[0] != '5' {
		return "", false
	}
	line, after, _ := bytes.Cut(rest, []byte("\r\n"))
	if !bytes.HasPrefix(after, []byte(ownHeader[2:])) {
		return "", false
	}
	return string(line), true
}
