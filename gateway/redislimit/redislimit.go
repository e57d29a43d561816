// Package redislimit counts a gateway's rate limits in Redis, so that several gateways share them.
//
//	limiter, err := redislimit.New(client, redislimit.Config{})
//	gw, err := gateway.New(gateway.Config{Limiter: limiter, ...})
//
// A limit is a token bucket, kept by one script on the server and by the server's clock: gateways whose clocks differ
// agree. Keys end by themselves when their bucket is full again. While Redis does not answer, each gateway counts for
// itself in memory: the limit is then that of one gateway, and no request passes uncounted. Redis is asked again after
// Config.RetryAfter, by one request, so that a dead one costs no request its time.
package redislimit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sillar-go/sillar/gateway"
)

// Config is the configuration of a Limiter.
type Config struct {
	// Prefix is what keys begin with. Default "sillar:limit:".
	Prefix string
	// Timeout bounds the wait of a request for its turn to ask Redis, and then for the answer. Default 100 ms. A longer
	// one makes a slow Redis felt, a shorter one counts more requests in memory.
	Timeout time.Duration
	// Concurrency bounds the requests that ask Redis at once; further ones wait for their turn within Timeout, and are
	// counted in memory when it does not come. Default: the size of the client's pool, so that waiting for a connection is
	// not taken for an outage.
	Concurrency int
	// RetryAfter is how long a Redis that did not answer is not asked. Default 1 s.
	RetryAfter time.Duration
	// Logger logs when Redis stops and starts to answer. Default slog.Default().
	Logger *slog.Logger
}

// Limiter is a gateway.Limiter over Redis.
type Limiter struct {
	client redis.Scripter
	cfg    Config
	turns  chan struct{}
	local  gateway.Limiter
	down   atomic.Int64 // until when Redis is not asked, Unix nanoseconds; 0 while it answers
}

var _ gateway.Limiter = (*Limiter)(nil)

// New returns a Limiter over client, which the caller closes. The client's options must have ContextTimeoutEnabled:
// without it go-redis ignores deadlines.
func New(client redis.Scripter, cfg Config) (*Limiter, error) {
	if client == nil {
		return nil, errors.New("redislimit: no client")
	}
	if !heedsDeadlines(client) {
		return nil, errors.New(
			"redislimit: the client must have Options.ContextTimeoutEnabled, or Config.Timeout would bound nothing",
		)
	}
	cfg.Prefix = cmp.Or(cfg.Prefix, "sillar:limit:")
	cfg.Timeout = cmp.Or(cfg.Timeout, 100*time.Millisecond)
	cfg.RetryAfter = cmp.Or(cfg.RetryAfter, time.Second)
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	if cfg.Concurrency <= 0 {
		cfg.Concurrency = poolSize(client)
	}
	return &Limiter{
		client: client,
		cfg:    cfg,
		turns:  make(chan struct{}, cfg.Concurrency),
		local:  gateway.NewMemoryLimiter(0),
	}, nil
}

// poolSize is the number of connections that a client opens, as far as its options can be seen.
func poolSize(client redis.Scripter) int {
	switch c := client.(type) {
	case *redis.Client:
		return max(1, c.Options().PoolSize)
	case *redis.ClusterClient:
		return max(1, c.Options().PoolSize)
	case *redis.Ring:
		return max(1, c.Options().PoolSize)
	}
	return 10 * runtime.GOMAXPROCS(0) // the default of go-redis
}

// heedsDeadlines reports whether a client does, as far as its options can be seen.
func heedsDeadlines(client redis.Scripter) bool {
	switch c := client.(type) {
	case *redis.Client:
		return c.Options().ContextTimeoutEnabled
	case *redis.ClusterClient:
		return c.Options().ContextTimeoutEnabled
	case *redis.Ring:
		return c.Options().ContextTimeoutEnabled
	}
	return true
}

// Must returns l or panics with err.
func Must(l *Limiter, err error) *Limiter {
	if err != nil {
		panic(err)
	}
	return l
}

// take answers with -1 when a token was taken, else with the milliseconds until there is one, and with the tokens that
// are left in thousandths: Redis cuts the fraction off a Lua number.
var take = redis.NewScript(`
local rate, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local t = redis.call('TIME')
local now = tonumber(t[1]) + tonumber(t[2]) / 1e6
local b = redis.call('HMGET', KEYS[1], 'left', 'at')
local left = burst
if b[1] then
  left = math.min(burst, tonumber(b[1]) + math.max(0, now - tonumber(b[2])) * rate)
end
local wait = -1
if left >= 1 then
  left = left - 1
else
  wait = math.ceil((1 - left) / rate * 1000)
end
redis.call('HSET', KEYS[1], 'left', string.format('%.9f', left), 'at', string.format('%.6f', now))
redis.call('PEXPIRE', KEYS[1], math.ceil(burst / rate * 1000) + 1000)
return {wait, math.floor(left * 1000)}
`)

// Allow implements gateway.Limiter.
func (l *Limiter) Allow(ctx context.Context, key string, rate float64, burst int) (gateway.Quota, error) {
	if !l.mayAsk() {
		return l.local.Allow(ctx, key, rate, burst)
	}
	release, err := l.turn(ctx)
	if err != nil { // Redis answers others: this is a burst, not an outage
		return l.local.Allow(ctx, key, rate, burst)
	}
	defer release()
	asking, cancel := l.bounded(ctx)
	defer cancel()
	answer, err := take.Run(asking, l.client, []string{l.cfg.Prefix + key}, rate, burst).Int64Slice()
	if err == nil && len(answer) != 2 {
		err = fmt.Errorf("redislimit: %d values in an answer", len(answer))
	}
	if err != nil {
		if ctx.Err() != nil {
			return gateway.Quota{}, fmt.Errorf("redislimit: count a request: %w", context.Cause(ctx))
		}
		l.failed(ctx, err)
		return l.local.Allow(ctx, key, rate, burst)
	}
	if l.down.Swap(0) != 0 {
		l.cfg.Logger.InfoContext(ctx, "redislimit: Redis answers again, limits are shared again")
	}
	wait, left := answer[0], float64(answer[1])/1000
	reset := time.Duration(min((float64(burst)-left)/rate*float64(time.Second), 1<<62))
	if wait < 0 {
		return gateway.Quota{OK: true, Remaining: int(left), Reset: reset}, nil
	}
	return gateway.Quota{RetryAfter: time.Duration(wait) * time.Millisecond, Reset: reset}, nil
}

// turn waits for a place among those that ask Redis.
func (l *Limiter) turn(ctx context.Context) (release func(), err error) {
	release = func() { <-l.turns }
	select {
	case l.turns <- struct{}{}:
		return release, nil
	default:
	}
	ctx, cancel := l.bounded(ctx)
	defer cancel()
	select {
	case l.turns <- struct{}{}:
		return release, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (l *Limiter) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if l.cfg.Timeout <= 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, l.cfg.Timeout)
}

// mayAsk reports whether Redis may be asked: while it answers, and by one request after each RetryAfter.
func (l *Limiter) mayAsk() bool {
	until := l.down.Load()
	if until == 0 {
		return true
	}
	now := time.Now()
	return now.UnixNano() >= until && l.down.CompareAndSwap(until, now.Add(l.cfg.RetryAfter).UnixNano())
}

func (l *Limiter) failed(ctx context.Context, err error) {
	if l.down.Swap(time.Now().Add(l.cfg.RetryAfter).UnixNano()) == 0 {
		l.cfg.Logger.ErrorContext(
			ctx, "redislimit: Redis does not answer, this gateway counts for itself", "error", err, "retry_after",
			l.cfg.RetryAfter,
		)
	}
}
