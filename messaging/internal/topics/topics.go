// Package topics has the rules of topic patterns and of the names of groups.
package topics

import (
	"fmt"
	"strings"
)

// Match reports whether a topic matches an AMQP topic pattern: * stands for exactly one word and # for any number of
// words, none included; words are separated by dots.
func Match(pattern, topic string) bool {
	if !IsPattern(pattern) {
		return pattern == topic
	}
	var words []string // of an empty topic there are none, as the server sees it
	if topic != "" {
		words = strings.Split(topic, ".")
	}
	return matchWords(strings.Split(pattern, "."), words)
}

// matchWords runs in time proportional to the product of the lengths, whatever the pattern: reach[i] says that the
// words so far match the first i words of the pattern.
func matchWords(pattern, topic []string) bool {
	reach := make([]bool, len(pattern)+1)
	reach[0] = true
	for i, p := range pattern {
		reach[i+1] = reach[i] && p == "#"
	}
	for _, w := range topic {
		diagonal := reach[0]
		reach[0] = false
		for i, p := range pattern {
			above := reach[i+1]
			switch p {
			case "#":
				reach[i+1] = reach[i] || above || diagonal
			case "*":
				reach[i+1] = diagonal
			default:
				reach[i+1] = diagonal && p == w
			}
			diagonal = above
		}
	}
	return reach[len(pattern)]
}

const (
	maxHashes = 2   // RabbitMQ's limit since 4.3
	maxName   = 255 // as messaging.MaxName
	maxGroup  = 200 // leaves room for the names of the queues that a group has beside its own
)

// IsPattern reports whether a pattern matches more than the topic of its name.
func IsPattern(s string) bool { return strings.ContainsAny(s, "*#") }

// Valid reports what is wrong with a pattern.
func Valid(pattern string) error {
	hashes := 0
	for w := range strings.SplitSeq(pattern, ".") {
		if strings.ContainsAny(w, "*#") && len(w) > 1 {
			return fmt.Errorf("pattern %q: * and # stand for whole words", pattern)
		}
		if w == "#" {
			hashes++
		}
	}
	if hashes > maxHashes {
		return fmt.Errorf("pattern %q: want at most %d times #", pattern, maxHashes)
	}
	if pattern == "" || len(pattern) > maxName || strings.ContainsAny(pattern, " \t\r\n") {
		return fmt.Errorf("pattern %q: want 1 to %d bytes without space", pattern, maxName)
	}
	return nil
}

// ValidGroup reports what is wrong with the name of a group, which names its queue.
func ValidGroup(name string) error {
	switch {
	case name == "" || len(name) > maxGroup:
		return fmt.Errorf("group %q: want 1 to %d bytes", name, maxGroup)
	case strings.HasSuffix(name, ".dead"), strings.Contains(name, ".retry."), strings.Contains(name, ".partition."),
		strings.HasPrefix(name, "amq."):
		return fmt.Errorf("group %q: names with .dead at the end, with .retry., .partition. or with amq. at the beginning "+
			"are taken", name)
	}
	return nil
}
