package repository

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"time"
)

// Key is a sort key of a Plan.
type Key struct {
	Column int // place in Mapping.Columns
	Desc   bool
}

// Plan is a checked query with the cursor turned into a filter, for adapters to run: select by Where, order by Keys
// with NULL before every value, skip Offset and read Limit+1 entities; Page then makes the page of them.
type Plan[E any] struct {
	Mapping *Mapping
	Where   Node
	Keys    []Key
	Limit   int
	Offset  int

	mark string
}

// NewPlan checks a query. Nothing has been sent when it fails.
func NewPlan[E any](q Query[E]) (*Plan[E], error) {
	m, err := MappingOf[E]()
	if err != nil {
		return nil, err
	}
	where, err := q.Where.Node()
	if err != nil {
		return nil, err
	}
	p := &Plan[E]{Mapping: m, Where: where, Limit: q.Limit, Offset: q.Offset}
	switch {
	case q.Limit == 0:
		p.Limit = DefaultLimit
	case q.Limit < 0 || q.Limit > MaxLimit:
		return nil, &QueryError{fmt.Sprintf("limit %d is outside 1 to %d", q.Limit, MaxLimit)}
	}
	if q.Offset < 0 || q.Offset > MaxOffset {
		return nil, &QueryError{fmt.Sprintf("offset %d is outside 0 to %d", q.Offset, MaxOffset)}
	}
	if q.Offset > 0 && q.After != "" {
		return nil, &QueryError{"offset and cursor do not go together"}
	}
	seen := map[int]bool{}
	for _, s := range q.Sort {
		if s.err != nil {
			return nil, s.err
		}
		if !seen[s.column] { // a repeated key decides nothing
			seen[s.column] = true
			p.Keys = append(p.Keys, Key{s.column, s.desc})
		}
	}
	if !seen[m.ID] {
		p.Keys = append(p.Keys, Key{Column: m.ID})
	}
	p.mark = p.fingerprint()
	if q.After != "" {
		values, err := p.decode(q.After)
		if err != nil {
			return nil, err
		}
		p.Where = Node{Op: OpAnd, Kids: []Node{p.Where, p.beyond(values)}}
	}
	return p, nil
}

// Page makes the page of what was read, up to Limit+1 entities.
func (p *Plan[E]) Page(items []E) Page[E] {
	if len(items) <= p.Limit {
		return Page[E]{Items: items}
	}
	items = items[:p.Limit]
	return Page[E]{Items: items, Next: p.encode(&items[p.Limit-1])}
}

// beyond selects what comes after the entity with these key values: for the keys a, b, c
// a > va, or a = va and b > vb, or a = va and b = vb and c > vc; NULL counts as less than every value.
func (p *Plan[E]) beyond(values []any) Node {
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
		case k.Desc && p.Mapping.Columns[k.Column].MayBeNull():
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
func (p *Plan[E]) fingerprint() string {
	h := sha256.New()
	fmt.Fprintf(h, "%s|", p.Mapping.typ)
	var walk func(n Node)
	walk = func(n Node) {
		fmt.Fprintf(h, "(%d,%d,%T:%q,", n.Op, n.Column, n.Value, fmt.Sprint(n.Value))
		for _, v := range n.Values {
			fmt.Fprintf(h, "%T:%q,", v, fmt.Sprint(v))
		}
		for _, k := range n.Kids {
			walk(k)
		}
		fmt.Fprint(h, ")")
	}
	walk(p.Where)
	fmt.Fprint(h, p.Keys)
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:9])
}

// maxCursor bounds what is decoded, in bytes.
const maxCursor = 8 << 10

func (p *Plan[E]) encode(e *E) string {
	values := make([]*string, len(p.Keys))
	for i, k := range p.Keys {
		values[i] = text(p.Mapping.Columns[k.Column].Value(reflect.ValueOf(e).Elem()))
	}
	body, err := json.Marshal(values)
	if err != nil { // strings always encode
		panic(err)
	}
	sum := p.sum(body)
	return base64.RawURLEncoding.EncodeToString(append(sum, body...))
}

// sum covers the values and the query, so that a changed cursor is told from a good one. It is no secret: a client
// that forges one gains a page that starts elsewhere in the result it may read anyway.
func (p *Plan[E]) sum(body []byte) []byte {
	s := sha256.Sum256([]byte("sillar cursor\x00" + p.mark + "\x00" + string(body)))
	return s[:9]
}

func (p *Plan[E]) decode(cursor string) ([]any, error) {
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
	var texts []*string
	if err := json.Unmarshal(body, &texts); err != nil || len(texts) != len(p.Keys) {
		return nil, ErrCursor
	}
	values := make([]any, len(texts))
	for i, s := range texts {
		c := p.Mapping.Columns[p.Keys[i].Column]
		if s == nil {
			if !c.MayBeNull() {
				return nil, ErrCursor
			}
			continue
		}
		if values[i], err = c.parse(*s); err != nil {
			return nil, ErrCursor
		}
	}
	return values, nil
}

// Value returns the value of the column in an entity, in the types that Node documents, nil for NULL. The value of a JSON
// column is returned as it is. entity is addressable. A Valuer that fails counts as NULL; Encode returns its error.
func (c Column) Value(entity reflect.Value) any {
	f := entity.FieldByIndex(c.Index)
	if c.Nullable {
		if f.IsNil() {
			return nil
		}
		f = f.Elem()
	}
	if c.Valuer {
		v, _ := driverValue(f)
		return v
	}
	return normal(f.Interface())
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

func (c Column) parse(s string) (any, error) {
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
