package live

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sillar-go/sillar/messaging/memory"
)

// slowWriter is a viewer that does not read, until it is released.
type slowWriter struct {
	*httptest.ResponseRecorder
	release chan struct{}
	writes  chan string
}

func (w *slowWriter) Write(p []byte) (int, error) {
	<-w.release
	w.writes <- string(p)
	return len(p), nil
}

// A viewer that does not read blocks no other; it then gets the latest state and not all that it missed. The number of
// viewers is bounded, and their streams end when the listeners close.
func TestSlowViewers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(memory.Must(memory.New(memory.Config{})), true)
		serve := func(w http.ResponseWriter) <-chan struct{} {
			done := make(chan struct{})
			go func() {
				defer close(done)
				p.stream(w, httptest.NewRequestWithContext(context.Background(), "GET", "/live/stream", nil))
			}()
			synctest.Wait()
			return done
		}
		slow := &slowWriter{httptest.NewRecorder(), make(chan struct{}), make(chan string, 100)}
		ended := []<-chan struct{}{serve(slow)}
		for n := range 1000 { // none of which waits
			p.note("note %d.", n)
		}
		close(slow.release)
		synctest.Wait()
		var got []string
		for len(slow.writes) > 0 {
			got = append(got, <-slow.writes)
		}
		if len(got) > 4 || !strings.Contains(got[len(got)-1], "note 999.") {
			t.Fatalf("%d writes, the last: %s", len(got), got[len(got)-1])
		}
		for range maxViewers - 1 {
			ended = append(ended, serve(httptest.NewRecorder()))
		}
		late := httptest.NewRecorder()
		if <-serve(late); late.Code != http.StatusServiceUnavailable {
			t.Errorf("one too many: %d", late.Code)
		}
		time.Sleep(keepAlive) // in which nothing happens
		synctest.Wait()
		if text := <-slow.writes; text != ": still here\n\n" {
			t.Errorf("a quiet stream says %q", text)
		}
		p.close()
		for _, done := range ended {
			<-done
		}
		if p.watched() {
			t.Error("a viewer is left")
		}
	})
}
