package breaker

import "time"

// Pause is the pause after n pauses under r.
func Pause(r Retry, n int) time.Duration {
	b := Must(New(Config{Retry: r}))
	p := b.pauses()
	for range n {
		p.NextBackOff()
	}
	return jitter(p.NextBackOff())
}
