package authn

import (
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// This parser is written by hand because json.Decoder.Token accepts what it must refuse: duplicate members, lone
// surrogates and invalid UTF-8 (both become U+FFFD). Checking those around the decoder would mean parsing twice, on the
// path of every request; BenchmarkVerify compares.

// maxDepth bounds the nesting of a token's JSON.
const maxDepth = 16

var errJSON = errors.New("not strict JSON")

// strictObject reads a JSON object as encoding/json would, with numbers as json.Number. It refuses what two readers
// could understand differently: duplicate members at any depth, members at the root that differ only in case, invalid
// UTF-8, lone surrogates, numbers out of range, nesting deeper than maxDepth, and anything around the object,
// whitespace too.
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
	"client_id": true, "scope": true, "cnf": true,
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
	if loneSurrogate(quoted) || json.Unmarshal([]byte(quoted), &s) != nil {
		return "", errJSON
	}
	return s, nil
}

// loneSurrogate reports whether a quoted string escapes half of a surrogate pair. encoding/json reads such a half as
// U+FFFD, which is a legal character by itself.
func loneSurrogate(quoted string) bool {
	unit := func(i int) rune { // the UTF-16 unit that is escaped at i, or 0
		if len(quoted) < i+6 || quoted[i] != '\\' || quoted[i+1] != 'u' {
			return 0
		}
		n, err := strconv.ParseUint(quoted[i+2:i+6], 16, 16)
		if err != nil {
			return 0
		}
		return rune(n)
	}
	for i := 0; i < len(quoted); i++ {
		if quoted[i] != '\\' {
			continue
		}
		if u := unit(i); utf16.IsSurrogate(u) {
			if utf16.DecodeRune(u, unit(i+6)) == utf8.RuneError {
				return true
			}
			i += 10 // the rest of this escape, and the next one but its last byte
		}
		i++ // the character behind the backslash
	}
	return false
}

func (p *parser) number() (json.Number, error) {
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
		return "", errJSON
	}
	if at(".") {
		if p.i++; !digits() {
			return "", errJSON
		}
	}
	if at("eE") {
		if p.i++; at("+-") {
			p.i++
		}
		if !digits() {
			return "", errJSON
		}
	}
	f, err := strconv.ParseFloat(p.s[start:p.i], 64)
	if err != nil || math.IsInf(f, 0) {
		return "", errJSON
	}
	return json.Number(p.s[start:p.i]), nil
}
