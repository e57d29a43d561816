package gateway

import (
	"bytes"
	"fmt"
	"log"
	"net"
	"sync"
	"time"
)

// refusals tells a log of requests that net/http refuses by itself, before there is one: no handler and no hook of its
// sees them.
type refusals struct {
	log *log.Logger // nil means the standard one

	mu     sync.Mutex
	next   time.Time // when the log may be told again
	untold int       // how many it has not been told of since
}

// tell tells of one: the status line of the answer, and why the guard refused it, if it did.
func (r *refusals) tell(from net.Addr, answer, why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if now.Before(r.next) { // strangers write no more of the log than this
		r.untold++
		return
	}
	if why != "" {
		answer += ": " + why
	}
	to := r.log
	if to == nil {
		to = log.Default()
	}
	if r.untold > 0 {
		answer += fmt.Sprintf(" (and %d more before it)", r.untold)
	}
	to.Printf("gateway: what %s sent is no request: %s", from, answer)
	r.next, r.untold = now.Add(time.Second), 0
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
