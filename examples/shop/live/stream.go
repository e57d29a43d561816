package live

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/sillar-go/sillar/examples/shop/internal/platform"
)

// Bounds of the stream.
const (
	maxViewers   = 32
	writeTimeout = 5 * time.Second // then a viewer that does not read is let go
	keepAlive    = 15 * time.Second
	linesAtOnce  = 150
)

// frame is one message to a viewer: the changes since the last one.
type frame struct {
	Fresh  bool              `json:"fresh,omitempty"` // the first one: what was there before is to be forgotten
	HTML   map[string]string `json:"html,omitempty"`  // the contents of elements, by id
	Orders []orderHTML       `json:"orders,omitempty"`
	Pulse  map[string]string `json:"pulse,omitempty"` // ok or bad, by the id of an edge
	Broken map[string]string `json:"broken"`          // half-open or open, by the id of an edge
	State  map[string]string `json:"state"`           // of the controls
	Log    []string          `json:"log,omitempty"`
}

type orderHTML struct {
	ID   string `json:"id"`
	HTML string `json:"html"`
}

// seen is how far a viewer has come.
type seen struct {
	correlation        string
	state, rows, lines uint64
	pulses             uint64
	sent               bool
}

// stream serves the one stream of the page: a frame whenever something changed, and nothing that waits for who does not
// read. A viewer that is slow gets fewer frames, each with the latest of everything.
func (p *Page) stream(w http.ResponseWriter, r *http.Request) {
	changed, leave := p.enter()
	if changed == nil {
		platform.Fail(http.StatusServiceUnavailable, "too-many-viewers", "too many pages are open already").Write(r.Context(),
			w)
		return
	}
	defer leave()
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no")
	out := http.NewResponseController(w)
	send := func(text string) bool {
		_ = out.SetWriteDeadline(time.Now().Add(writeTimeout))
		_, err := fmt.Fprint(w, text)
		return err == nil && out.Flush() == nil
	}
	if !send("retry: 1000\n\n") {
		return
	}
	at := seen{correlation: r.URL.Query().Get("correlation")}
	idle := time.NewTicker(keepAlive)
	defer idle.Stop()
	for {
		if f, news := p.frame(&at); news {
			var data bytes.Buffer
			enc := json.NewEncoder(&data) // ends with a newline
			enc.SetEscapeHTML(false)      // no HTML document is what this stands in
			if enc.Encode(f) != nil || !send("data: "+data.String()+"\n") {
				return
			}
		}
		select {
		case <-changed:
		case <-idle.C:
			if !send(": still here\n\n") {
				return
			}
		case <-r.Context().Done():
			return
		case <-p.closing:
			return
		}
	}
}

// enter adds a viewer, nil when there are too many. leave takes it away again.
func (p *Page) enter() (changed <-chan struct{}, leave func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.viewers) >= maxViewers {
		return nil, nil
	}
	c := make(chan struct{}, 1)
	p.viewers[c] = struct{}{}
	select {
	case p.wake <- struct{}{}: // the first one ends a pause
	default:
	}
	return c, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.viewers, c)
	}
}

// notify wakes all viewers. A viewer that is still writing is woken once for all changes meanwhile.
func (p *Page) notify() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.viewers {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// watched reports whether the page has viewers.
func (p *Page) watched() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.viewers) > 0
}
