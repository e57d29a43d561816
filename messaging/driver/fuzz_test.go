package driver_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/driver"
)

// matches is the definition of AMQP, as recursion: slow, and easy to see.
func matches(pattern, topic []string) bool {
	if len(pattern) == 0 {
		return len(topic) == 0
	}
	switch pattern[0] {
	case "#":
		return matches(pattern[1:], topic) || len(topic) > 0 && matches(pattern, topic[1:])
	case "*":
		return len(topic) > 0 && matches(pattern[1:], topic[1:])
	}
	return len(topic) > 0 && pattern[0] == topic[0] && matches(pattern[1:], topic[1:])
}

func FuzzMatch(f *testing.F) {
	for _, s := range [][2]string{{"a.*", "a.b"}, {"#", ""}, {"a.#.b", "a.b"}, {"*..#", "..x"}, {"#.#.*", "a"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, pattern, topic string) {
		if len(topic) > 40 || driver.ValidPattern(pattern) != nil {
			return
		}
		words := strings.Split(topic, ".")
		if topic == "" && strings.ContainsAny(pattern, "*#") {
			words = nil
		}
		if got, want := driver.Match(pattern, topic), matches(strings.Split(pattern, "."), words); got != want {
			t.Fatalf("Match(%q, %q) = %v", pattern, topic, got)
		}
	})
}

// An envelope is either refused, as malformed, or within the limits of AMQP.
func FuzzEnvelope(f *testing.F) {
	f.Add("orders.created", "id", "src", "key", "x-name", "value")
	f.Add("a.*", "", "", "", "", "\x00")
	f.Fuzz(func(t *testing.T, topic, id, source, key, name, value string) {
		e, err := driver.Fill(t.Context(),
			messaging.Envelope{Type: topic, ID: id, Key: key, Headers: map[string]string{name: value}}, source, nil)
		if err != nil {
			if !errors.Is(err, messaging.ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		if e.ID == "" || e.Type != topic || len(topic) > messaging.MaxName || len(e.ID) > messaging.MaxName ||
			len(name) > messaging.MaxName ||
			len(key)+len(name)+len(value) > messaging.MaxHeaders || e.Headers[strings.ToLower(name)] != value ||
			e.Time.IsZero() {
			t.Fatalf("accepted %+v", e)
		}
	})
}
