package authn

import (
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxDepth bounds the nesting of a token's JSON.
const maxDepth = 16

var errJSON = errors.New("not strict JSON")

// strictObject reads a JSON object as encoding/json would, but refuses what two readers could understand differently:
// duplicate members at any depth, members at the root that differ only in case, broken UTF-8, lone surrogates,
// numbers out of range, deep nesting, and anything around the object, whitespace too.
func strictObject(s string) (map[string]any, error) {
	if len(s) < 2 || s[0] != '{' {
		return nil, errJSON
	}
	p := parser{s: s}
	v, err := p.object(0)
	if err != nil {
		return nil, err
	}
	if p.i != len(s) {
		return nil, errJSON
	}
	return v, ambiguous(v)
}

// ambiguous refuses members that a reader that ignores case, as encoding/json does, would take for others.
func ambiguous(m map[string]any) error {
	var odd []string
	for k := range m {
		if fold(k) != k {
			odd = append(odd, k)
		}
	}
	seen := make(map[string]bool, len(odd))
	for _, k := range odd {
		f := fold(k)
		if _, both := m[f]; both || seen[f] || registered[f] {
			return errJSON
		}
		seen[f] = true
	}
	return nil
}

var registered = map[string]bool{
	"iss": true, "sub": true, "aud": true, "exp": true, "nbf": true, "iat": true, "jti": true, "roles": true,
	"alg": true, "kid": true, "typ": true, "cty": true, "crit": true, "b64": true,
}

// fold maps characters that are equal under case folding to one, ASCII letters to lower case.
func fold(s string) string {
	plain := true
	for i := range len(s) {
		if c := s[i]; c >= utf8.RuneSelf || 'A' <= c && c <= 'Z' {
			plain = false
			break
		}
	}
	if plain {
		return s
	}
	return strings.Map(func(r rune) rune {
		least := r // the orbit of SimpleFold holds its smallest member, for letters the ASCII capital if there is one
		for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
			least = min(least, f)
		}
		if 'A' <= least && least <= 'Z' {
			least += 'a' - 'A'
		}
		return least
	}, s)
}

type parser struct {
	s string
	i int
}

func (p *parser) space() {
	for p.i < len(p.s) {
		switch p.s[p.i] {
		case ' ', '\t', '\r', '\n':
			p.i++
		default:
			return
		}
	}
}

// next skips space and consumes c if it comes next.
func (p *parser) next(c byte) bool {
	p.space()
	if p.i < len(p.s) && p.s[p.i] == c {
		p.i++
		return true
	}
	return false
}

func (p *parser) object(depth int) (map[string]any, error) {
	if depth > maxDepth || !p.next('{') {
		return nil, errJSON
	}
	m := make(map[string]any, 8)
	if p.next('}') {
		return m, nil
	}
	for {
		p.space()
		k, err := p.str()
		if err != nil {
			return nil, err
		}
		if _, dup := m[k]; dup || !p.next(':') {
			return nil, errJSON
		}
		if m[k], err = p.value(depth); err != nil {
			return nil, err
		}
		if p.next(',') {
			continue
		}
		if p.next('}') {
			return m, nil
		}
		return nil, errJSON
	}
}

func (p *parser) array(depth int) ([]any, error) {
	if depth > maxDepth || !p.next('[') {
		return nil, errJSON
	}
	a := []any{}
	if p.next(']') {
		return a, nil
	}
	for {
		v, err := p.value(depth)
		if err != nil {
			return nil, err
		}
		a = append(a, v)
		if p.next(',') {
			continue
		}
		if p.next(']') {
			return a, nil
		}
		return nil, errJSON
	}
}

func (p *parser) value(depth int) (any, error) {
	p.space()
	if p.i >= len(p.s) {
		return nil, errJSON
	}
	switch p.s[p.i] {
	case '{':
		return p.object(depth + 1)
	case '[':
		return p.array(depth + 1)
	case '"':
		return p.str()
	case 't':
		return true, p.literal("true")
	case 'f':
		return false, p.literal("false")
	case 'n':
		return nil, p.literal("null")
	}
	return p.number()
}

func (p *parser) literal(word string) error {
	if !strings.HasPrefix(p.s[p.i:], word) {
		return errJSON
	}
	p.i += len(word)
	return nil
}

func (p *parser) str() (string, error) {
	if p.i >= len(p.s) || p.s[p.i] != '"' {
		return "", errJSON
	}
	start, escaped := p.i, false
	for p.i++; p.i < len(p.s); p.i++ {
		switch c := p.s[p.i]; {
		case c == '"':
			p.i++
			return text(p.s[start:p.i], escaped)
		case c == '\\':
			escaped = true
			p.i++
		case c < ' ':
			return "", errJSON
		}
	}
	return "", errJSON
}

// text decodes a quoted string.
func text(quoted string, escaped bool) (string, error) {
	if !utf8.ValidString(quoted) {
		return "", errJSON
	}
	if !escaped {
		return quoted[1 : len(quoted)-1], nil
	}
	var s string
	if json.Unmarshal([]byte(quoted), &s) != nil || strings.ContainsRune(s, utf8.RuneError) {
		return "", errJSON // U+FFFD is what encoding/json makes of lone surrogates
	}
	return s, nil
}

func (p *parser) number() (float64, error) {
	start := p.i
	digits := func() bool {
		from := p.i
		for p.i < len(p.s) && '0' <= p.s[p.i] && p.s[p.i] <= '9' {
			p.i++
		}
		return p.i > from
	}
	at := func(set string) bool { return p.i < len(p.s) && strings.IndexByte(set, p.s[p.i]) >= 0 }
	if at("-") {
		p.i++
	}
	if at("0") {
		p.i++
	} else if !digits() {
		return 0, errJSON
	}
	if at(".") {
		if p.i++; !digits() {
			return 0, errJSON
		}
	}
	if at("eE") {
		if p.i++; at("+-") {
			p.i++
		}
		if !digits() {
			return 0, errJSON
		}
	}
	f, err := strconv.ParseFloat(p.s[start:p.i], 64)
	if err != nil || math.IsInf(f, 0) {
		return 0, errJSON
	}
	return f, nil
}
