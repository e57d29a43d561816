// Package redislimit counts a gateway's rate limits in Redis, so that several gateways share them.
//
//	limiter, err := redislimit.New(client, redislimit.Config{})
//	gw, err := gateway.New(gateway.Config{Limiter: limiter, ...})
//
// A limit is a token bucket, kept by one script on the server and by the server's clock: gateways whose clocks differ
// agree. Keys end by themselves when their bucket is full again. A Redis that is slow or gone is an error, with which the
// gateway lets the request pass; each request waits for it no longer than Config.Timeout.
package redislimit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sillar-go/sillar/gateway"
)

// Config is the configuration of a Limiter.
type Config struct {
	// Prefix is what keys begin with. Default "sillar:limit:".
	Prefix string
	// Timeout bounds a request's wait for Redis. Default 100 ms; a longer one makes a slow Redis felt, a shorter one lets
	// more requests pass uncounted.
	Timeout time.Duration
}

// Limiter is a gateway.Limiter over Redis.
type Limiter struct {
	client redis.Scripter
	cfg    Config
}

var _ gateway.Limiter = (*Limiter)(nil)

// New returns a Limiter over client, which the caller closes. The client's options must have ContextTimeoutEnabled: without
// it go-redis does not heed deadlines.
func New(client redis.Scripter, cfg Config) (*Limiter, error) {
	if client == nil {
		return nil, errors.New("redislimit: no client")
	}
	if !heedsDeadlines(client) {
		return nil, errors.New("redislimit: the client must have Options.ContextTimeoutEnabled, or Config.Timeout would bound nothing")
	}
	if cfg.Prefix == "" {
		cfg.Prefix = "sillar:limit:"
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 100 * time.Millisecond
	}
	return &Limiter{client: client, cfg: cfg}, nil
}

// heedsDeadlines says whether a client does, as far as its options can be seen.
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

// take answers with -1 when a token was taken, else with the milliseconds until there is one. Numbers travel as text:
// Redis cuts the fraction off a Lua number.
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
return wait
`)

// Allow implements gateway.Limiter.
func (l *Limiter) Allow(ctx context.Context, key string, rate float64, burst int) (bool, time.Duration, error) {
	if l.cfg.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, l.cfg.Timeout)
		defer cancel()
	}
	wait, err := take.Run(ctx, l.client, []string{l.cfg.Prefix + key}, rate, burst).Int64()
	if err != nil {
		return false, 0, fmt.Errorf("redislimit: count a request: %w", err)
	}
	if wait < 0 {
		return true, 0, nil
	}
	return false, time.Duration(wait) * time.Millisecond, nil
}
