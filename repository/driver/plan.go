package driver

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"time"
)

// Key is a sort key of a Plan.
type Key struct {
	Column int // place, see Mapping.Field
	Desc   bool
}

// ErrCursor says that a cursor was changed, or belongs to another query.
var ErrCursor = errors.New("repository: cursor does not belong to this query")

// Plan is a checked query with the cursor turned into a filter. Select by Where, order by Keys with NULL before every
// value, skip Offset and read Limit+1 entities; Page then makes the page of them.
type Plan struct {
	Mapping *Mapping
	Where   Node
	Keys    []Key
	Limit   int
	Offset  int

	// Filter is Where without what the cursor selects, and After are the values of Keys that the page begins behind, nil
	// where it begins at the start: for databases that compare whole rows.
	Filter Node
	After  []any
}

// NewPlan makes the plan of a query that begins behind the cursor after, or at the start where that is empty. A
// repeated key is left out, and the id is the last one, in the direction of the key before it, so that an index on the
// keys serves both directions. The error is ErrCursor.
func NewPlan(m *Mapping, where Node, keys []Key, after string) (*Plan, error) {
	p := &Plan{Mapping: m, Where: where, Filter: where}
	last := Key{Column: m.ID}
	if len(keys) > 0 {
		last.Desc = keys[len(keys)-1].Desc
	}
	seen := map[int]bool{}
	for _, k := range append(slices.Clip(keys), last) {
		if !seen[k.Column] {
			seen[k.Column] = true
			p.Keys = append(p.Keys, k)
		}
	}
	if after != "" {
		values, err := p.decode(after)
		if err != nil {
			return nil, err
		}
		p.After = values
		p.Where = Node{Op: OpAnd, Kids: []Node{p.Where, p.beyond(values)}}
	}
	return p, nil
}

// Page cuts what was read, up to Limit+1 entities, to a page, and returns the cursor of the next one, "" on the last.
func Page[E any](p *Plan, items []E) (page []E, next string) {
	if len(items) <= p.Limit {
		return items, ""
	}
	return items[:p.Limit], p.encode(reflect.ValueOf(&items[p.Limit-1]).Elem())
}

// beyond selects what comes after the entity with these key values: for the keys a, b, c
// a > va, or a = va and b > vb, or a = va and b = vb and c > vc; NULL counts as less than every value. With several
// keys a >= va is added: it follows from the rest, and lets an index on a begin where the page begins.
func (p *Plan) beyond(values []any) Node {
	rest := p.lexicographic(values)
	first, v := p.Keys[0], values[0]
	if len(p.Keys) == 1 || v == nil {
		return rest
	}
	bound := Node{Op: OpGte, Column: first.Column, Value: v}
	if first.Desc {
		if p.Mapping.Field(first.Column).MayBeNull() { // NULLs follow, which no range of an index covers
			return rest
		}
		bound.Op = OpLte
	}
	return Node{Op: OpAnd, Kids: []Node{bound, rest}}
}

func (p *Plan) lexicographic(values []any) Node {
	or := Node{Op: OpOr}
	var equal []Node
	for i, k := range p.Keys {
		v := values[i]
		null := Node{Op: OpNull, Column: k.Column}
		var past Node
		switch {
		case v == nil && k.Desc:
			past = Node{Op: OpOr} // nothing is less than NULL; an empty OR matches nothing
		case v == nil:
			past = Node{Op: OpNot, Kids: []Node{null}}
		case k.Desc && p.Mapping.Field(k.Column).MayBeNull():
			past = Node{Op: OpOr, Kids: []Node{{Op: OpLt, Column: k.Column, Value: v}, null}}
		case k.Desc:
			past = Node{Op: OpLt, Column: k.Column, Value: v}
		default:
			past = Node{Op: OpGt, Column: k.Column, Value: v}
		}
		or.Kids = append(or.Kids, Node{Op: OpAnd, Kids: append(append([]Node(nil), equal...), past)})
		if v == nil {
			equal = append(equal, null)
		} else {
			equal = append(equal, Node{Op: OpEq, Column: k.Column, Value: v})
		}
	}
	return or
}

// fingerprint binds a cursor to filter and sort.
func (p *Plan) fingerprint() string {
	text := append([]byte(p.Mapping.typ.String()), '|')
	var walk func(n Node)
	walk = func(n Node) {
		text = fmt.Appendf(text, "(%d,%d,%T:%q,", n.Op, n.Column, n.Value, fmt.Sprint(n.Value))
		for _, v := range n.Values {
			text = fmt.Appendf(text, "%T:%q,", v, fmt.Sprint(v))
		}
		for _, k := range n.Kids {
			walk(k)
		}
		text = append(text, ')')
	}
	walk(p.Filter)
	sum := sha256.Sum256(fmt.Append(text, p.Keys))
	return base64.RawURLEncoding.EncodeToString(sum[:9])
}

// maxCursor bounds what is decoded, in bytes. Sort keys are a part of the cursor: those of usual length make one that
// fits into a URL.
const maxCursor = 4 << 20

// encode makes the cursor of an entity: for each key a byte that distinguishes NULL from a value, the length and the
// value.
func (p *Plan) encode(entity reflect.Value) string {
	var body []byte
	for _, k := range p.Keys {
		s := text(p.Mapping.Field(k.Column).Value(entity))
		if s == nil {
			body = append(body, 0)
			continue
		}
		body = append(body, 1)
		body = binary.AppendUvarint(body, uint64(len(*s)))
		body = append(body, *s...)
	}
	return base64.RawURLEncoding.EncodeToString(append(p.sum(body), body...))
}

// cursorKeys reads what encode wrote: n keys, nil for NULL.
func cursorKeys(body []byte, n int) ([]*string, bool) {
	keys := make([]*string, n)
	for i := range keys {
		if len(body) == 0 || body[0] > 1 {
			return nil, false
		}
		null := body[0] == 0
		body = body[1:]
		if null {
			continue
		}
		length, width := binary.Uvarint(body)
		if width <= 0 || length > uint64(len(body)-width) {
			return nil, false
		}
		s := string(body[width : width+int(length)])
		keys[i], body = &s, body[width+int(length):]
	}
	return keys, len(body) == 0
}

// sum covers the values and the query, so that a changed cursor is recognised. It is no secret: a client
// that forges one gains a page that starts elsewhere in the result it may read anyway.
func (p *Plan) sum(body []byte) []byte {
	s := sha256.Sum256([]byte("sillar cursor\x00" + p.fingerprint() + "\x00" + string(body)))
	return s[:9]
}

func (p *Plan) decode(cursor string) ([]any, error) {
	if len(cursor) > maxCursor {
		return nil, ErrCursor
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	if err != nil || len(raw) < 9 {
		return nil, ErrCursor
	}
	body := raw[9:]
	if !bytes.Equal(p.sum(body), raw[:9]) {
		return nil, ErrCursor
	}
	texts, ok := cursorKeys(body, len(p.Keys))
	if !ok {
		return nil, ErrCursor
	}
	values := make([]any, len(texts))
	for i, s := range texts {
		c := p.Mapping.Field(p.Keys[i].Column)
		if s == nil {
			if !c.MayBeNull() {
				return nil, ErrCursor
			}
			continue
		}
		if values[i], err = c.Parse(*s); err != nil {
			return nil, ErrCursor
		}
	}
	return values, nil
}

// Value returns the value of the column in an entity, in the types that Node documents, nil for NULL. The value of a
// JSON column is returned as it is. entity is addressable. A Valuer that fails counts as NULL; Encode returns its
// error.
func (c Column) Value(entity reflect.Value) any {
	f := entity.FieldByIndex(c.Index)
	if c.Nullable {
		if f.IsNil() {
			return nil
		}
		f = f.Elem()
	}
	if v, ok := plain(f.Addr().Interface()); ok {
		return v
	}
	if c.Valuer {
		v, _ := driverValue(f)
		return v
	}
	return Normal(f.Interface())
}

func text(v any) *string {
	var s string
	switch t := v.(type) {
	case nil:
		return nil
	case string:
		s = t
	case time.Time:
		s = strconv.FormatInt(t.UnixMicro(), 10)
	case float64:
		s = strconv.FormatFloat(t, 'g', -1, 64)
	case []byte:
		s = base64.StdEncoding.EncodeToString(t)
	default:
		s = fmt.Sprint(t)
	}
	return &s
}

// Parse reads a value of the column from text: what a cursor holds, times as microseconds since 1970.
func (c Column) Parse(s string) (any, error) {
	switch c.Kind {
	case KindBool:
		return strconv.ParseBool(s)
	case KindInt:
		return strconv.ParseInt(s, 10, 64)
	case KindFloat:
		return strconv.ParseFloat(s, 64)
	case KindTime:
		us, err := strconv.ParseInt(s, 10, 64)
		return time.UnixMicro(us).UTC(), err
	case KindBytes:
		return base64.StdEncoding.DecodeString(s)
	default:
		return s, nil
	}
}
