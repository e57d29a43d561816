package messaging

import (
	"fmt"
	"strings"
)

// Match reports whether a topic matches an AMQP topic pattern: * stands for exactly one word and # for any number of
// words, none included; words are separated by dots.
func Match(pattern, topic string) bool {
	if !isPattern(pattern) {
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

// maxHashes is RabbitMQ's limit since 4.3.
const maxHashes = 2

// ValidPattern reports what is wrong with a pattern, as an ErrInvalid.
func ValidPattern(pattern string) error {
	hashes := 0
	for w := range strings.SplitSeq(pattern, ".") {
		if strings.ContainsAny(w, "*#") && len(w) > 1 {
			return fmt.Errorf("%w: pattern %q: * and # stand for whole words", ErrInvalid, pattern)
		}
		if w == "#" {
			hashes++
		}
	}
	if hashes > maxHashes {
		return fmt.Errorf("%w: pattern %q: want at most %d times #", ErrInvalid, pattern, maxHashes)
	}
	if pattern == "" || len(pattern) > MaxName || strings.ContainsAny(pattern, " \t\r\n") {
		return fmt.Errorf("%w: pattern %q: want 1 to %d bytes without space", ErrInvalid, pattern, MaxName)
	}
	return nil
}
