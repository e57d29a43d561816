package gateway_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/sillar-go/sillar/gateway"
)

// nameServer answers for names that a test sets. Resolvers reach it through pipes, so that it works in a bubble too.
type nameServer struct {
	mu        sync.Mutex
	addresses map[string][]string
	services  map[string][]dnsmessage.SRVResource
	down      bool
	asked     int
}

func (s *nameServer) set(name string, addresses ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.addresses == nil {
		s.addresses = map[string][]string{}
	}
	s.addresses[name] = slices.Clone(addresses)
}

func (s *nameServer) setDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

func (s *nameServer) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, StrictErrors: true, Dial: func(context.Context, string,
		string) (net.Conn, error) {
		client, server := net.Pipe()
		go s.serve(server)
		return client, nil
	}}
}

// serve answers queries with a length before them, as over TCP.
func (s *nameServer) serve(c net.Conn) {
	defer c.Close()
	for {
		var length [2]byte
		if _, err := io.ReadFull(c, length[:]); err != nil {
			return
		}
		query := make([]byte, binary.BigEndian.Uint16(length[:]))
		if _, err := io.ReadFull(c, query); err != nil {
			return
		}
		answer, err := s.answer(query)
		if err != nil {
			return
		}
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)); err != nil {
			return
		}
	}
}

func (s *nameServer) answer(query []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil || len(m.Questions) != 1 {
		return nil, errors.New("no question")
	}
	q := m.Questions[0]
	s.asked++
	m.Response, m.Additionals = true, nil
	name := strings.TrimSuffix(q.Name.String(), ".")
	head := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 5}
	known := s.addresses[name] != nil || s.services[name] != nil
	switch {
	case s.down:
		m.RCode = dnsmessage.RCodeServerFailure
	case !known:
		m.RCode = dnsmessage.RCodeNameError
	case q.Type == dnsmessage.TypeSRV:
		for _, r := range s.services[name] {
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: head, Body: &r})
		}
	}
	for _, a := range s.addresses[name] {
		ip := netip.MustParseAddr(a)
		switch {
		case s.down:
		case q.Type == dnsmessage.TypeA && ip.Is4():
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.AResource{A: ip.As4()}})
		case q.Type == dnsmessage.TypeAAAA && ip.Is6():
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.AAAAResource{AAAA: ip.As16()}})
		}
	}
	return m.Pack()
}

// lookOnce makes package net read its configuration outside of bubbles, which it keeps for the process.
func lookOnce(t *testing.T, s *nameServer) {
	t.Helper()
	s.set("first.test", "127.0.0.1")
	if _, err := s.resolver().LookupHost(t.Context(), "first.test"); err != nil {
		t.Fatal(err)
	}
}

func TestDNSFollowsRecords(t *testing.T) {
	var s nameServer
	lookOnce(t, &s)
	synctest.Test(t, func(t *testing.T) {
		upstream, err := url.Parse("http://users.test:8000/base")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		updates, ended := make(chan []gateway.Instance, 10), make(chan error, 1)
		began := time.Now()
		s.set("users.test", "10.0.0.2", "10.0.0.1", "2001:db8::1")
		go func() {
			d := gateway.DNS{Resolver: s.resolver(), Interval: 7 * time.Second}
			ended <- d.Watch(ctx, upstream, func(found []gateway.Instance) { updates <- found })
		}()
		want := func(after time.Duration, addresses ...string) {
			t.Helper()
			var got []string
			for _, i := range <-updates {
				got = append(got, i.Address)
			}
			if !slices.Equal(got, addresses) || time.Since(began) != after {
				t.Errorf("after %s: got %v, want %v after %s", time.Since(began), got, addresses, after)
			}
		}
		want(0, "10.0.0.1:8000", "10.0.0.2:8000") // sorted, and of one version
		s.set("users.test", "10.0.0.3", "10.0.0.1")
		want(7*time.Second, "10.0.0.1:8000", "10.0.0.3:8000")
		s.set("users.test", "2001:db8::2")
		want(14*time.Second, "[2001:db8::2]:8000")
		s.setDown(true)
		if err := <-ended; err == nil || len(updates) != 0 {
			t.Errorf("an outage of the name servers: got %v and %d updates, want an error and none", err, len(updates))
		}
		s.setDown(false)
		go func() {
			ended <- gateway.DNS{Resolver: s.resolver()}.Watch(ctx, upstream, func(found []gateway.Instance) {
				updates <- found
			})
		}()
		<-updates
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("at the end: %v", err)
		}
	})
}

func TestDNSServices(t *testing.T) {
	var s nameServer
	lookOnce(t, &s)
	target := func(name string, priority, weight, port uint16) dnsmessage.SRVResource {
		return dnsmessage.SRVResource{Priority: priority, Weight: weight, Port: port, Target: dnsmessage.MustNewName(name)}
	}
	s.services = map[string][]dnsmessage.SRVResource{"_http._tcp.users.test": {
		target("backup.test.", 20, 1, 80), target("b.test.", 10, 3, 8001), target("a.test.", 10, 0, 8000),
	}}
	upstream, err := url.Parse("http://_http._tcp.users.test")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var got []gateway.Instance
	err = gateway.DNS{SRV: true, Resolver: s.resolver()}.Watch(ctx, upstream, func(found []gateway.Instance) {
		got = found
		cancel()
	})
	want := []gateway.Instance{
		{Address: "a.test:8000", Weight: 1, Priority: 10}, {Address: "b.test:8001", Weight: 3, Priority: 10},
		{Address: "backup.test:80", Weight: 1, Priority: 20},
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v %v, want %v", got, err, want)
	}
}
