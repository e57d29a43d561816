package authn

import (
	"encoding/base64"
	"strings"
)

// MaxTokenSize is the length of the longest token that is read, in bytes. An Entra token with 200 groups, the most that
// Entra puts into a token, is about 11 KiB long. net/http reads up to 1 MiB of headers by default; proxies often less.
const MaxTokenSize = 16 << 10

var encoding = base64.RawURLEncoding.Strict()

// jws is a parsed token; nothing in it has been verified.
type jws struct {
	signed  string // header and payload as they are signed
	alg     string
	kid     string
	typ     string
	header  map[string]any
	payload string
	sig     []byte
}

// split parses a token and refuses every form but the canonical one.
func split(token string) (*jws, error) {
	if len(token) > MaxTokenSize {
		return nil, refuse("too long")
	}
	dots, first, last := 0, -1, -1
	for i := range len(token) {
		switch c := token[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		case c == '.':
			if dots++; first < 0 {
				first = i
			}
			last = i
		default: // padding, and the line breaks that encoding/base64 skips
			return nil, refuse("form")
		}
	}
	if dots != 2 || first == 0 || last == len(token)-1 {
		return nil, refuse("form")
	}
	head, err := encoding.DecodeString(token[:first])
	if err != nil {
		return nil, refuse("form")
	}
	payload, err := encoding.DecodeString(token[first+1 : last])
	if err != nil {
		return nil, refuse("form")
	}
	j := &jws{signed: token[:last], payload: string(payload)}
	if j.sig, err = encoding.DecodeString(token[last+1:]); err != nil {
		return nil, refuse("form")
	}
	return j, j.readHeader(string(head))
}

func (j *jws) readHeader(head string) error {
	var err error
	if j.header, err = strictObject(head); err != nil {
		return refuse("header")
	}
	for name, dest := range map[string]*string{"alg": &j.alg, "kid": &j.kid, "typ": &j.typ} {
		v, there := j.header[name]
		s, ok := v.(string)
		if there && (!ok || s == "") {
			return refuse("header")
		}
		*dest = s
	}
	if j.alg == "" {
		return refuse("header")
	}
	if _, ok := j.header["crit"]; ok { // we understand no extension, so none may be critical
		return refuse("critical extension")
	}
	if _, ok := j.header["b64"]; ok {
		return refuse("unencoded payload")
	}
	if _, ok := j.header["enc"]; ok {
		return refuse("encrypted")
	}
	return nil
}

// VerifyJWS verifies a compact JWS whose payload may be anything, and returns its header and payload. It checks
// no times, issuers and audiences: programs verify tokens with a Verifier. The key's algorithm decides; a token that
// names another one is refused.
func VerifyJWS(token string, key VerifyKey) (header map[string]any, payload []byte, err error) {
	if err := key.Check(); err != nil {
		return nil, nil, err
	}
	j, err := split(token)
	if err != nil {
		return nil, nil, err
	}
	if err := j.check(key); err != nil {
		return nil, nil, err
	}
	return j.header, []byte(j.payload), nil
}

func (j *jws) check(key VerifyKey) error {
	if j.alg != string(key.Algorithm) {
		return refuse("algorithm")
	}
	return key.verify(j.signed, j.sig)
}

// plainType reports whether typ is one of allowed, without its optional "application/" and without regard to case.
func plainType(typ string, allowed []string) bool {
	typ = strings.ToLower(typ)
	typ = strings.TrimPrefix(typ, "application/")
	for _, a := range allowed {
		if strings.ToLower(a) == typ {
			return true
		}
	}
	return false
}
