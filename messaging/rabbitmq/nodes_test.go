package rabbitmq

import (
	"testing"
	"time"
)

// A URL names one host or several, each with its port, and never with an empty name among others.
func TestURLsWithSeveralHosts(t *testing.T) {
	for url, want := range map[string][]string{
		"amqp://h":                         {"amqp://h"},
		"amqp://":                          {"amqp://"},
		"amqp://u:p@h1:1,h2:2/":            {"amqp://u:p@h1:1/", "amqp://u:p@h2:2/"},
		"amqps://u:a,b@h1,[::1]:2/v?x=1,2": {"amqps://u:a,b@h1/v?x=1,2", "amqps://u:a,b@[::1]:2/v?x=1,2"},
		"amqp://h1:1,/":                    nil,
		"amqp://,h1:1":                     nil,
		"amqp://h1:1,h2:x":                 nil,
		"http://h1,h2":                     nil,
		"":                                 nil,
	} {
		n, err := parse(url)
		if (err != nil) != (want == nil) {
			t.Errorf("%q: %v", url, err)
		}
		if err != nil {
			continue
		}
		for i, x := range n.all {
			if i >= len(want) || x.url != want[i] {
				t.Errorf("%q: node %d is %q", url, i, x.url)
			}
		}
	}
}

// A node that failed is avoided for a while that grows, as long as another one is left; all are chosen in turn.
func TestNodesThatFailedAreAvoided(t *testing.T) {
	n, err := parse("amqp://a,b,c")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	chosen := map[string]int{}
	for range 300 {
		chosen[n.pick(now).host]++
	}
	if chosen["a"] < 50 || chosen["b"] < 50 || chosen["c"] < 50 {
		t.Errorf("chosen: %v", chosen)
	}
	a, b, c := n.all[0], n.all[1], n.all[2]
	if !n.failed(a, now) || !n.failed(b, now) {
		t.Error("there is another one")
	}
	for range 50 {
		if x := n.pick(now.Add(avoidFor - 1)); x != c {
			t.Fatalf("%s was chosen", x.host)
		}
	}
	if n.failed(c, now.Add(time.Second)) {
		t.Error("there is no other one")
	}
	if x := n.pick(now.Add(time.Second)); x == c {
		t.Error("the one that failed last was chosen")
	}
	n.failed(a, now.Add(avoidFor))
	n.works(b)
	for range 50 {
		if x := n.pick(now.Add(avoidFor + avoidFor)); x == a {
			t.Fatal("the second failure is forgotten as fast as the first")
		}
	}
}
