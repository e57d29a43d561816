package observability

import (
	"sync/atomic"
	"time"
)

// clock writes times of log lines as time.RFC3339Nano in UTC. It keeps the second that it wrote last, which most lines
// share.
type clock struct{ last atomic.Pointer[second] }

type second struct {
	unix int64
	text string
}

func (c *clock) append(b []byte, t time.Time) []byte {
	s := c.last.Load()
	if unix := t.Unix(); s == nil || s.unix != unix {
		s = &second{unix, t.UTC().Format("2006-01-02T15:04:05")}
		c.last.Store(s)
	}
	b = append(b, s.text...)
	if n := t.Nanosecond(); n > 0 {
		digits := [10]byte{0: '.'}
		for i := len(digits) - 1; i > 0; i-- {
			digits[i] = byte('0' + n%10)
			n /= 10
		}
		end := len(digits)
		for digits[end-1] == '0' {
			end--
		}
		b = append(b, digits[:end]...)
	}
	return append(b, 'Z')
}
