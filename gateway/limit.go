package gateway

import (
	"cmp"
	"container/list"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"sync"
	"time"

	"github.com/sillar-go/sillar/internal/problem"
)

// Limiter counts requests for Route.RateLimit. Package redislimit has one for several gateways.
type Limiter interface {
	// Allow takes one of the tokens of key, of which rate a second come back, up to burst. With an error the request
	// passes.
	Allow(ctx context.Context, key string, rate float64, burst int) (Quota, error)
}

// Quota is what a Limiter says of a request.
type Quota struct {
	// OK says that a token was taken.
	OK bool
	// RetryAfter is when there will be a token, if there is none.
	RetryAfter time.Duration
	// Remaining is how many tokens are left, and Reset when all of them will be there again.
	Remaining int
	Reset     time.Duration
}

// within counts a request, and answers it when it exceeds the limit.
func (g *Gateway) within(ctx context.Context, w *reply, r *http.Request, x *exchange) bool {
	rt := x.route
	quota, err := g.cfg.Limiter.Allow(ctx, g.limitKey(r, x), rt.RateLimit.Rate, rt.RateLimit.burst())
	if ctx.Err() != nil {
		w.disconnected()
		return false
	}
	if err != nil { // a broken counter must not close the service
		g.telemetry.log(
			ctx, slog.LevelError, "gateway: the rate limit cannot be counted, the request passes", slog.Any("error", err),
			slog.String("route", rt.Name),
		)
		return true
	}
	if rt.policy != "" {
		w.policy, w.quota = rt.policy, quota
	}
	if !quota.OK {
		retryAfter(w.Header(), quota.RetryAfter)
		problem.Write(ctx, w, http.StatusTooManyRequests, "too-many-requests", "Too many requests.")
	}
	return quota.OK
}

// limitKey is what a request is counted by.
func (g *Gateway) limitKey(r *http.Request, x *exchange) string {
	limit := x.route.RateLimit
	switch {
	case limit.BySubject && x.who != nil:
		return x.route.Name + "|subject:" + x.who.subject
	case limit.ByHeader != "":
		if v := r.Header.Get(limit.ByHeader); v != "" {
			return x.route.Name + "|header:" + bounded(v)
		}
	case limit.Key != "":
		if v := g.cfg.LimitKeys[limit.Key](r); v != "" {
			return x.route.Name + "|" + limit.Key + ":" + bounded(v)
		}
	}
	return x.route.Name + "|client:" + g.network(r)
}

// bounded keeps keys short that clients choose.
func bounded(v string) string {
	if len(v) <= sha256.Size {
		return v
	}
	sum := sha256.Sum256([]byte(v))
	return hex.EncodeToString(sum[:])
}

func (l *RateLimit) burst() int { return cmp.Or(l.Burst, max(1, int(l.Rate))) }

// limitBy checks what requests are counted by, and makes the policy that answers carry.
func (r *route) limitBy() error {
	l := r.RateLimit
	if l == nil {
		return nil
	}
	if l.Key != "" && r.g.cfg.LimitKeys[l.Key] == nil {
		return fmt.Errorf("key: there is no %q in Config.LimitKeys", l.Key)
	}
	if l.Headers {
		window := max(1, math.Ceil(float64(l.burst())/l.Rate))
		r.policy = fmt.Sprintf("\"default\";q=%d;w=%.0f", l.burst(), min(window, 1e9))
	}
	return nil
}

// setQuota sets the headers of the client's quota, as draft-ietf-httpapi-ratelimit-headers-10 says.
func (w *reply) setQuota(h http.Header) {
	h["Ratelimit-Policy"] = []string{w.policy}
	reset := min(math.Ceil(max(w.quota.Reset, w.quota.RetryAfter).Seconds()), 1e9)
	h["Ratelimit"] = []string{fmt.Sprintf("\"default\";r=%d;t=%.0f", w.quota.Remaining, reset)}
}

// MemoryLimiter counts in this process.
type MemoryLimiter struct {
	max int

	mu     sync.Mutex
	byKey  map[string]*list.Element
	recent *list.List // of *tokens, the most recently used first
}

type tokens struct {
	key  string
	left float64
	last time.Time
}

// NewMemoryLimiter returns a limiter that remembers at most maxKeys keys, 0 for 65,536. Those unused for longest are
// forgotten first: they have all their tokens again anyway, unless there are more clients than keys.
func NewMemoryLimiter(maxKeys int) *MemoryLimiter {
	if maxKeys <= 0 {
		maxKeys = 1 << 16
	}
	return &MemoryLimiter{max: maxKeys, byKey: map[string]*list.Element{}, recent: list.New()}
}

// Allow implements Limiter.
func (l *MemoryLimiter) Allow(_ context.Context, key string, rate float64, burst int) (Quota, error) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.byKey[key]
	if !ok {
		if len(l.byKey) >= l.max {
			last := l.recent.Back()
			delete(l.byKey, l.recent.Remove(last).(*tokens).key)
		}
		e = l.recent.PushFront(&tokens{key: key, left: float64(burst), last: now})
		l.byKey[key] = e
	}
	l.recent.MoveToFront(e)
	t := e.Value.(*tokens)
	t.left = min(float64(burst), t.left+now.Sub(t.last).Seconds()*rate)
	t.last = now
	after := func(tokens float64) time.Duration { return time.Duration(min(tokens/rate*float64(time.Second), 1<<62)) }
	if t.left < 1 {
		return Quota{RetryAfter: after(1 - t.left), Reset: after(float64(burst) - t.left)}, nil
	}
	t.left--
	return Quota{OK: true, Remaining: int(t.left), Reset: after(float64(burst) - t.left)}, nil
}
