package jetstream

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/sillar-go/sillar/messaging"
)

// maxToken keeps the names of consumers below the server's limit of 255 bytes.
const maxToken = 200

// token makes one word of a subject, and the name of a consumer, of a group's name. Different groups have different
// ones.
func token(group string) string {
	var b strings.Builder
	for i := range len(group) {
		switch c := group[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "=%02X", c)
		}
	}
	if b.Len() <= maxToken {
		return b.String()
	}
	sum := sha256.Sum256([]byte(group))
	return b.String()[:maxToken-33] + "=" + hex.EncodeToString(sum[:16])
}

// subject returns the subject of a topic.
func (b *Broker) subject(topic string) (string, error) {
	for w := range strings.SplitSeq(topic, ".") {
		if w == "" || w == ">" {
			return "", fmt.Errorf("%w: topic %q: NATS allows neither empty words nor >", messaging.ErrInvalid, topic)
		}
	}
	return b.cfg.Stream + "." + topic, nil
}

// topic returns the topic of a subject.
func (b *Broker) topic(subject string) string { return strings.TrimPrefix(subject, b.cfg.Stream+".") }

func (b *Broker) retrySubject(group string) string { return b.cfg.Stream + "_retry." + token(group) }
func (b *Broker) deadSubject(group string) string  { return b.cfg.Stream + "_dead." + token(group) }
func (b *Broker) deadStream() string               { return b.cfg.Stream + "_dead" }

// filters returns the subjects by which a group's consumer filters: those of the patterns, and those it has already.
// They do not contain each other, which the server would refuse.
func (b *Broker) filters(group string, patterns, have []string) ([]string, error) {
	all := append([]string{b.retrySubject(group)}, have...)
	for _, p := range patterns {
		more, err := b.patternSubjects(p)
		if err != nil {
			return nil, err
		}
		all = append(all, more...)
	}
	slices.Sort(all)
	all = slices.Compact(all)
	var out []string
	for _, f := range all {
		if !slices.ContainsFunc(all, func(other string) bool { return other != f && contains(other, f) }) {
			out = append(out, f)
		}
	}
	for i, f := range out {
		for _, other := range out[i+1:] {
			if overlap(f, other) {
				return nil, fmt.Errorf("%w: group %s: %s and %s overlap, and neither contains the other", ErrPattern, group,
					b.topic(f), b.topic(other))
			}
		}
	}
	return out, nil
}

// patternSubjects returns the subjects that a pattern stands for: # is any number of words, and > at least one.
func (b *Broker) patternSubjects(pattern string) ([]string, error) {
	words := strings.Split(pattern, ".")
	last := len(words) - 1
	for i, w := range words {
		switch {
		case w == "" || w == ">":
			return nil, fmt.Errorf("%w: pattern %q: NATS allows neither empty words nor >", ErrPattern, pattern)
		case w == "#" && i < last:
			return nil, fmt.Errorf("%w: pattern %q: NATS has # only at the end", ErrPattern, pattern)
		}
	}
	if words[last] != "#" {
		return []string{b.cfg.Stream + "." + pattern}, nil
	}
	words[last] = ">"
	out := []string{b.cfg.Stream + "." + strings.Join(words, ".")}
	if last > 0 {
		out = append(out, b.cfg.Stream+"."+strings.Join(words[:last], "."))
	}
	return out, nil
}

// contains reports whether filter a takes every subject that filter b takes.
func contains(a, b string) bool {
	x, y := strings.Split(a, "."), strings.Split(b, ".")
	for i, w := range x {
		switch {
		case i >= len(y):
			return false
		case w == ">":
			return true
		case y[i] == ">", w != "*" && w != y[i]:
			return false
		}
	}
	return len(x) == len(y)
}

// overlap reports whether some subject is taken by both filters.
func overlap(a, b string) bool {
	x, y := strings.Split(a, "."), strings.Split(b, ".")
	for i := range min(len(x), len(y)) {
		if x[i] == ">" || y[i] == ">" {
			return true
		}
		if x[i] != y[i] && x[i] != "*" && y[i] != "*" {
			return false
		}
	}
	return len(x) == len(y)
}
