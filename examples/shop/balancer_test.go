package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"
)

// balancer stands before the replicas of every service, as Kubernetes' services do: a connection goes to one that is
// ready.
type balancer struct {
	offset   int
	replicas []int // offsets

	mu      sync.Mutex
	healthy map[string]bool // by URL
	turn    int
	conns   map[net.Conn]struct{}
}

func newBalancer(t *testing.T, offset int, replicas []int) *balancer {
	t.Helper()
	b := &balancer{offset: offset, replicas: replicas, healthy: map[string]bool{}, conns: map[net.Conn]struct{}{}}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for name := range ports {
		l, err := net.Listen("tcp", b.addr(name))
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() { b.accept(l, name) })
		context.AfterFunc(ctx, func() { _ = l.Close() })
		for r := range replicas {
			if name != "grpc" {
				wg.Go(func() { b.probe(ctx, b.replica(name, r)) })
			}
		}
	}
	t.Cleanup(func() {
		stop()
		b.mu.Lock()
		for c := range b.conns {
			_ = c.Close()
		}
		b.mu.Unlock()
		wg.Wait()
	})
	return b
}

func at(name string, offset int) string { return "127.0.0.1:" + strconv.Itoa(ports[name]+offset) }

func (b *balancer) addr(name string) string           { return at(name, b.offset) }
func (b *balancer) url(name string) string            { return "http://" + b.addr(name) }
func (b *balancer) replica(name string, r int) string { return "http://" + at(name, b.replicas[r]) }

// knows reports whether a replica was ready when it was asked last.
func (b *balancer) knows(name string, r int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.healthy[b.replica(name, r)]
}

// probePeriod is how often a replica is asked whether it is ready.
const probePeriod = 250 * time.Millisecond

// probe asks a replica whether it is ready.
func (b *balancer) probe(ctx context.Context, url string) {
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for ctx.Err() == nil {
		req, err := http.NewRequestWithContext(ctx, "GET", url+"/ready", nil)
		ok := false
		if err == nil {
			var res *http.Response
			if res, err = client.Do(req); err == nil {
				_ = res.Body.Close()
				ok = res.StatusCode == http.StatusOK
			}
		}
		b.mu.Lock()
		b.healthy[url] = ok
		b.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(probePeriod):
		}
	}
}

func (b *balancer) accept(l net.Listener, name string) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go b.serve(c, name)
	}
}

// choose returns the addresses of the ready replicas, the next one in turn first.
func (b *balancer) choose(name string) (list []string) {
	probed := name
	if name == "grpc" {
		probed = "users"
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.turn++
	for i := range b.replicas {
		r := (i + b.turn) % len(b.replicas)
		if b.healthy[b.replica(probed, r)] {
			list = append(list, at(name, b.replicas[r]))
		}
	}
	return list
}

func (b *balancer) keep(c net.Conn) func() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.conns[c] = struct{}{}
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.conns, c)
		_ = c.Close()
	}
}

func (b *balancer) serve(c net.Conn, name string) {
	defer b.keep(c)()
	for _, to := range b.choose(name) {
		up, err := net.DialTimeout("tcp", to, time.Second)
		if err != nil {
			continue
		}
		defer b.keep(up)()
		var both sync.WaitGroup
		for from, to := range map[net.Conn]net.Conn{c: up, up: c} {
			both.Go(func() {
				_, _ = io.Copy(to, from)
				_ = c.Close()
				_ = up.Close()
			})
		}
		both.Wait()
		return
	}
}

// freeOffsetFrom finds an offset, from one on, at which all ports of the shop are free.
func freeOffsetFrom(t *testing.T, from int) int {
	t.Helper()
search:
	for offset := from; offset < 14000; offset += 97 {
		for name := range ports {
			l, err := net.Listen("tcp", at(name, offset))
			if err != nil {
				continue search
			}
			_ = l.Close()
		}
		return offset
	}
	t.Fatal(fmt.Sprint("no free ports from ", from))
	return 0
}
