package breaker

import "time"

// Pause is the pause after n pauses under r.
func Pause(r Retry, n int) time.Duration {
	return Must(New(Config{Retry: r})).cfg.Retry.Backoff.Delay(n + 1)
}

// Window is a window for tests.
type Window struct{ w *window }

// NewWindow returns a window over d.
func NewWindow(d time.Duration) Window { return Window{newWindow(d)} }

// Add counts a call.
func (w Window) Add(slow, failed bool) { w.w.add(slow, failed) }

// Sum returns what is in the window.
func (w Window) Sum() (calls, failed, slow int) { return w.w.sum() }

// TripFor opens a closed breaker as a failure does.
func TripFor(b *Breaker, err error) { b.trip(b.era.Load(), err) }
