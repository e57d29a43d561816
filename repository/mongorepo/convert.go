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
	"github.com/sillar-go/sillar/repository/internal/prefix"
)

// key is the name of a column in documents.
func (r *Repo[E]) key(column int) string {
	if column == r.m.ID {
		return "_id"
	}
	return r.m.Columns[column].Name
}

// encode makes the document of an entity, _id first.
func (r *Repo[E]) encode(e *E) (bson.D, error) {
	r.life.Normalize(e)
	v := reflect.ValueOf(e).Elem()
	doc := bson.D{{Key: "_id", Value: r.life.ID(e)}}
	for i, c := range r.m.Columns {
		if i == r.m.ID {
			continue
		}
		x, err := c.Encode(v)
		if err != nil {
			return nil, fmt.Errorf("mongorepo: write %s: %w", r.cfg.Collection, err)
		}
		doc = append(doc, bson.E{Key: c.Name, Value: value(x)})
	}
	return doc, nil
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
		case c.Valuer, c.Kind == repository.KindJSON, c.Kind == repository.KindBytes:
			var stored any
			if stored, err = driverValue(val, c.Kind); err == nil {
				err = c.Decode(v, stored)
			}
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
func driverValue(val bson.RawValue, k repository.Kind) (any, error) {
	switch {
	case k == repository.KindTime && val.Type == bson.TypeDateTime:
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
var operators = map[repository.Op]string{
	repository.OpEq: "$eq", repository.OpLt: "$lt", repository.OpLte: "$lte", repository.OpGt: "$gt", repository.OpGte: "$gte",
}

func (r *Repo[E]) filter(n repository.Node) bson.D {
	on := func(test bson.D) bson.D { return bson.D{{Key: r.key(n.Column), Value: test}} }
	switch n.Op {
	case repository.OpAll:
		return bson.D{}
	case repository.OpAnd:
		return r.join("$and", n.Kids, bson.D{})
	case repository.OpOr:
		return r.join("$or", n.Kids, nothing)
	case repository.OpNot:
		return bson.D{{Key: "$nor", Value: bson.A{r.filter(n.Kids[0])}}}
	case repository.OpNull:
		return on(bson.D{{Key: "$eq", Value: nil}})
	case repository.OpNe:
		return on(bson.D{{Key: "$nin", Value: bson.A{nil, value(n.Value)}}})
	case repository.OpPrefix:
		if p := n.Value.(string); !utf8.ValidString(p) { // no regular expression holds it
			bounds := bson.D{{Key: "$gte", Value: p}}
			if end, ok := prefix.End(p); ok {
				bounds = append(bounds, bson.E{Key: "$lt", Value: end})
			}
			return on(bounds)
		}
		pattern := "^" + strings.ReplaceAll(regexp.QuoteMeta(n.Value.(string)), "\x00", `\x00`) // a pattern ends with a zero byte
		return on(bson.D{{Key: "$regex", Value: bson.Regex{Pattern: pattern}}})
	case repository.OpIn:
		list := bson.A{}
		for _, v := range n.Values {
			list = append(list, value(v))
		}
		return on(bson.D{{Key: "$in", Value: list}})
	}
	return on(bson.D{{Key: operators[n.Op], Value: value(n.Value)}})
}

// nothing matches no document.
var nothing = bson.D{{Key: "_id", Value: bson.D{{Key: "$in", Value: bson.A{}}}}}

func (r *Repo[E]) join(op string, kids []repository.Node, empty bson.D) bson.D {
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
		return t.Truncate(repository.PrecisionMongo)
	}
	return v
}
