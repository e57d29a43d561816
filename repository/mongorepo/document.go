package mongorepo

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// toBSON returns what is stored for JSON text: a document for an object, an array for an array, so that queries of the
// server's own reach into them. Text stays text where it is a scalar, or where a document would not read as it was:
// numbers of more digits than BSON has, names that begin with $, hold a dot or a zero byte, or come twice.
func toBSON(text string) any {
	if !strings.HasPrefix(text, "{") && !strings.HasPrefix(text, "[") {
		return text
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	v, err := nested(d)
	if err != nil {
		return text
	}
	return v
}

var errText = errors.New("mongorepo: stays text")

func nested(d *json.Decoder) (any, error) {
	t, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch t := t.(type) {
	case json.Delim:
		if t == '{' {
			return object(d)
		}
		list := bson.A{}
		for d.More() {
			v, err := nested(d)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err := d.Token()
		return list, err
	case json.Number:
		return number(t)
	default:
		return t, nil
	}
}

func object(d *json.Decoder) (any, error) {
	doc, seen := bson.D{}, map[string]bool{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, err
		}
		name := t.(string)
		if seen[name] || name == "" || name[0] == '$' || strings.ContainsAny(name, ".\x00") {
			return nil, errText
		}
		seen[name] = true
		v, err := nested(d)
		if err != nil {
			return nil, err
		}
		doc = append(doc, bson.E{Key: name, Value: v})
	}
	_, err := d.Token()
	return doc, err
}

// number returns the int64 or the float64 that prints as n does.
func number(n json.Number) (any, error) {
	if i, err := strconv.ParseInt(n.String(), 10, 64); err == nil && strconv.FormatInt(i, 10) == n.String() {
		return i, nil
	}
	f, err := n.Float64()
	if err != nil {
		return nil, errText
	}
	if printed, err := json.Marshal(f); err != nil || string(printed) != n.String() {
		return nil, errText
	}
	return f, nil
}

// toJSON is the inverse of toBSON, and reads documents of other programs.
func toJSON(v bson.RawValue) (string, error) {
	if s, ok := v.StringValueOK(); ok {
		return s, nil
	}
	var b bytes.Buffer
	if err := writeJSON(&b, v); err != nil {
		return "", err
	}
	return b.String(), nil
}

func writeJSON(b *bytes.Buffer, v bson.RawValue) error {
	switch v.Type {
	case bson.TypeEmbeddedDocument, bson.TypeArray:
		return writeElements(b, v)
	case bson.TypeDouble:
		return writeScalar(b, integral(v.Double()))
	case bson.TypeDecimal128:
		return writeScalar(b, json.Number(v.Decimal128().String()))
	case bson.TypeObjectID:
		return writeScalar(b, v.ObjectID().Hex())
	case bson.TypeDateTime:
		return writeScalar(b, v.Time().UTC())
	case bson.TypeBinary:
		_, data := v.Binary()
		return writeScalar(b, data)
	case bson.TypeNull, bson.TypeUndefined:
		return writeScalar(b, nil)
	case bson.TypeString, bson.TypeBoolean, bson.TypeInt32, bson.TypeInt64:
		var scalar any
		if err := v.Unmarshal(&scalar); err != nil {
			return err
		}
		return writeScalar(b, scalar)
	}
	return fmt.Errorf("a value of BSON type %s", v.Type)
}

// integral keeps a float that is a whole number from being printed with an exponent, which no int field decodes: other
// programs store every number as a double.
func integral(f float64) any {
	if f == math.Trunc(f) && math.Abs(f) < 1<<53 && f != 0 {
		return int64(f)
	}
	return f
}

func writeScalar(b *bytes.Buffer, v any) error {
	raw, err := json.Marshal(v)
	b.Write(raw)
	return err
}

func writeElements(b *bytes.Buffer, v bson.RawValue) error {
	opening, closing := byte('{'), byte('}')
	raw := bson.Raw(v.Value)
	if v.Type == bson.TypeArray {
		opening, closing = '[', ']'
	}
	elements, err := raw.Elements()
	if err != nil {
		return err
	}
	b.WriteByte(opening)
	for i, e := range elements {
		if i > 0 {
			b.WriteByte(',')
		}
		if opening == '{' {
			if err := writeScalar(b, e.Key()); err != nil {
				return err
			}
			b.WriteByte(':')
		}
		if err := writeJSON(b, e.Value()); err != nil {
			return err
		}
	}
	b.WriteByte(closing)
	return nil
}
