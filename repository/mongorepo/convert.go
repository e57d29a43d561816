package mongorepo

import (
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/driver"
	"github.com/sillar-go/sillar/repository/internal/jsonmerge"
	"github.com/sillar-go/sillar/repository/internal/prefix"
)

// key is the name of a column in documents, or the path to a field inside one.
func (r *Repo[E]) key(column int) string {
	if column == r.m.ID {
		return "_id"
	}
	c := r.m.Field(column)
	if c.Path != nil {
		return r.m.Columns[c.In].Name + "." + strings.Join(c.Path, ".")
	}
	return c.Name
}

// id returns the _id of a document, or false where there can be none.
func (r *Repo[E]) id(id string) (any, bool) {
	if !r.cfg.ObjectIDs {
		return id, true
	}
	oid, err := bson.ObjectIDFromHex(id)
	return oid, err == nil
}

// encode returns the values of an entity by their columns, JSON as text.
func (r *Repo[E]) encode(e *E) ([]any, error) {
	r.life.Normalize(e)
	v := reflect.ValueOf(e).Elem()
	values := make([]any, len(r.m.Columns))
	for i, c := range r.m.Columns {
		x, err := c.Encode(v)
		if err != nil {
			return nil, fmt.Errorf("mongorepo: write %s: %w", r.cfg.Collection, err)
		}
		values[i] = value(x)
	}
	return values, nil
}

// document makes the document of an entity, _id first.
func (r *Repo[E]) document(e *E) (bson.D, error) {
	values, err := r.encode(e)
	if err != nil {
		return nil, err
	}
	id, ok := r.id(r.life.ID(e))
	if !ok {
		return nil, fmt.Errorf("mongorepo: write %s: %w: the id %.64q is no ObjectID", r.cfg.Collection, repository.ErrValue,
			r.life.ID(e))
	}
	doc := bson.D{{Key: "_id", Value: id}}
	for i := range r.m.Columns {
		if i != r.m.ID {
			doc = append(doc, bson.E{Key: r.key(i), Value: r.stored(i, values[i])})
		}
	}
	return doc, nil
}

// stored makes a document of JSON text.
func (r *Repo[E]) stored(column int, v any) any {
	if text, ok := v.(string); ok && r.m.Columns[column].Kind == driver.KindJSON && !r.m.Columns[column].Valuer {
		return toBSON(text)
	}
	return v
}

// changes returns the fields in which two versions of an entity differ, and version and time. raw is the document of
// before: JSON keeps what this version of the program does not know of.
func (r *Repo[E]) changes(e, before *E, raw bson.Raw) (bson.D, error) {
	is, err := r.encode(e)
	if err != nil {
		return nil, err
	}
	was, werr := r.encode(before)
	var set bson.D
	for i, c := range r.m.Columns {
		owned := i == r.m.Version || i == r.m.UpdatedAt
		if i == r.m.ID || !owned && werr == nil && reflect.DeepEqual(is[i], was[i]) {
			continue
		}
		if text, ok := is[i].(string); ok && c.Kind == driver.KindJSON && !c.Valuer && werr == nil {
			if held, err := raw.LookupErr(r.key(i)); err == nil {
				if stored, err := toJSON(held); err == nil {
					old, _ := was[i].(string)
					is[i] = jsonmerge.Merge(stored, old, text)
				}
			}
		}
		set = append(set, bson.E{Key: r.key(i), Value: r.stored(i, is[i])})
	}
	return set, nil
}

// decode fills an entity. A field that the document lacks stays zero, so that columns can be added.
func (r *Repo[E]) decode(raw bson.Raw, e *E) error {
	v := reflect.ValueOf(e).Elem()
	for i, c := range r.m.Columns {
		val, err := raw.LookupErr(r.key(i))
		if err != nil || val.Type == bson.TypeNull {
			continue
		}
		switch {
		case i == r.m.ID && val.Type == bson.TypeObjectID:
			v.FieldByIndex(c.Index).SetString(val.ObjectID().Hex())
		case c.Kind == driver.KindJSON && !c.Valuer:
			var text string
			if text, err = toJSON(val); err == nil {
				err = c.Decode(v, text)
			}
		case c.Valuer, c.Kind == driver.KindJSON, c.Kind == driver.KindBytes:
			var stored any
			if stored, err = driverValue(val, c.Kind); err == nil {
				err = c.Decode(v, stored)
			}
		case c.Kind == driver.KindString && val.Type == bson.TypeString: // also of a type that the client reads otherwise
			err = c.Decode(v, val.StringValue())
		default:
			err = val.Unmarshal(v.FieldByIndex(c.Index).Addr().Interface())
		}
		if err != nil {
			return fmt.Errorf("mongorepo: decode column %s of %s: %w", c.Name, r.cfg.Collection, err)
		}
	}
	r.life.Normalize(e)
	return nil
}

// driverValue returns a value in the types of database/sql, which Column.Decode reads.
func driverValue(val bson.RawValue, k driver.Kind) (any, error) {
	switch {
	case k == driver.KindTime && val.Type == bson.TypeDateTime:
		return val.Time().UTC(), nil
	case val.Type == bson.TypeBinary:
		_, data := val.Binary()
		return data, nil
	case val.Type == bson.TypeString:
		return val.StringValue(), nil
	case val.Type == bson.TypeInt32:
		return int64(val.Int32()), nil
	case val.Type == bson.TypeInt64:
		return val.Int64(), nil
	case val.Type == bson.TypeDouble:
		return val.Double(), nil
	case val.Type == bson.TypeBoolean:
		return val.Boolean(), nil
	}
	return nil, fmt.Errorf("a value of BSON type %s", val.Type)
}

// operators are those that a comparison translates to as it is. With a value beside them, none but $ne matches null.
var operators = map[driver.Op]string{
	driver.OpEq: "$eq", driver.OpLt: "$lt", driver.OpLte: "$lte", driver.OpGt: "$gt",
	driver.OpGte: "$gte",
}

func (r *Repo[E]) filter(n driver.Node) bson.D {
	on := func(test bson.D) bson.D { return bson.D{{Key: r.key(n.Column), Value: test}} }
	value := func(v any) any {
		if text, ok := v.(string); ok && n.Column == r.m.ID {
			if id, ok := r.id(text); ok {
				return id
			}
		}
		return value(v)
	}
	switch n.Op {
	case driver.OpAll:
		return bson.D{}
	case driver.OpAnd:
		return r.join("$and", n.Kids, bson.D{})
	case driver.OpOr:
		return r.join("$or", n.Kids, nothing)
	case driver.OpNot:
		return bson.D{{Key: "$nor", Value: bson.A{r.filter(n.Kids[0])}}}
	case driver.OpNull:
		return on(bson.D{{Key: "$eq", Value: nil}})
	case driver.OpNe:
		return on(bson.D{{Key: "$nin", Value: bson.A{nil, value(n.Value)}}})
	case driver.OpPrefix:
		if p := n.Value.(string); !utf8.ValidString(p) { // no regular expression holds it
			bounds := bson.D{{Key: "$gte", Value: p}}
			if end, ok := prefix.End(p); ok {
				bounds = append(bounds, bson.E{Key: "$lt", Value: end})
			}
			return on(bounds)
		}
		// a pattern ends with a zero byte
		pattern := "^" + strings.ReplaceAll(regexp.QuoteMeta(n.Value.(string)), "\x00", `\x00`)
		return on(bson.D{{Key: "$regex", Value: bson.Regex{Pattern: pattern}}})
	case driver.OpContains, driver.OpContainsFold:
		pattern, ok := containing(n.Value.(string), n.Op == driver.OpContainsFold)
		if !ok {
			return nothing
		}
		return on(bson.D{{Key: "$regex", Value: bson.Regex{Pattern: pattern}}})
	case driver.OpElement:
		return on(bson.D{{Key: "$elemMatch", Value: bson.D{{Key: "$eq", Value: n.Value}}}})
	case driver.OpIn:
		list := bson.A{}
		for _, v := range n.Values {
			list = append(list, value(v))
		}
		return on(bson.D{{Key: "$in", Value: list}})
	}
	return on(bson.D{{Key: operators[n.Op], Value: value(n.Value)}})
}

// containing returns the regular expression of what contains a text, or false where none holds it and no document does.
func containing(part string, fold bool) (pattern string, ok bool) {
	if !utf8.ValidString(part) {
		return "", false
	}
	var b strings.Builder
	for _, c := range part {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		switch {
		case c == 0:
			b.WriteString(`\x00`) // a pattern ends with a zero byte
		case fold && letter:
			b.WriteString("[" + strings.ToLower(string(c)) + strings.ToUpper(string(c)) + "]")
		default:
			b.WriteString(regexp.QuoteMeta(string(c)))
		}
	}
	return b.String(), true
}

// nothing matches no document.
var nothing = bson.D{{Key: "_id", Value: bson.D{{Key: "$in", Value: bson.A{}}}}}

func (r *Repo[E]) join(op string, kids []driver.Node, empty bson.D) bson.D {
	if len(kids) == 0 {
		return empty
	}
	list := bson.A{}
	for _, k := range kids {
		list = append(list, r.filter(k))
	}
	return bson.D{{Key: op, Value: list}}
}

// value cuts times as writing does.
func value(v any) any {
	if t, ok := v.(time.Time); ok {
		return t.Truncate(time.Millisecond)
	}
	return v
}
