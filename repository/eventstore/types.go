package eventstore

import (
	"encoding/json"
	"fmt"
	"reflect"
)

// Upcaster lifts data of one schema version to the next.
type Upcaster func(data json.RawMessage) (json.RawMessage, error)

// EventType says how events of one Go type are stored. Type makes it.
type EventType struct {
	name      string
	schema    int
	goType    reflect.Type
	decode    func(json.RawMessage) (any, error)
	upcasters []Upcaster
}

// Type stores events of type T under a name and a schema version. upcasters lift older data: the first from schema 1 to
// 2, the second from 2 to 3, and so on; there must be schema-1 of them.
func Type[T any](name string, schema int, upcasters ...Upcaster) EventType {
	return EventType{name, schema, reflect.TypeFor[T](), func(data json.RawMessage) (any, error) {
		var v T
		err := json.Unmarshal(data, &v)
		return v, err
	}, upcasters}
}

// Types are the types of the events E, an interface that they implement.
type Types[E any] []EventType

// codec turns events into what is stored, and back.
type codec[E any] struct {
	byName map[string]EventType
	byType map[reflect.Type]EventType
}

func newCodec[E any](types Types[E]) (*codec[E], error) {
	c := &codec[E]{map[string]EventType{}, map[reflect.Type]EventType{}}
	e := reflect.TypeFor[E]()
	for _, t := range types {
		_, known := c.byName[t.name]
		_, mapped := c.byType[t.goType]
		switch {
		case t.name == "" || t.schema < 1 || len(t.upcasters) != t.schema-1:
			return nil, fmt.Errorf("eventstore: type %q: want a name, a schema of at least 1, and schema-1 upcasters, "+
				"have schema %d and %d", t.name, t.schema, len(t.upcasters))
		case known || mapped:
			return nil, fmt.Errorf("eventstore: type %q or %s is there twice", t.name, t.goType)
		case e.Kind() == reflect.Interface && !t.goType.Implements(e) || e.Kind() != reflect.Interface && t.goType != e:
			return nil, fmt.Errorf("eventstore: type %q: %s is no %s", t.name, t.goType, e)
		}
		c.byName[t.name], c.byType[t.goType] = t, t
	}
	if len(types) == 0 {
		return nil, fmt.Errorf("eventstore: no event types of %s", e)
	}
	return c, nil
}

func (c *codec[E]) encode(e E) (Event, error) {
	t, ok := c.byType[reflect.TypeOf(e)]
	if !ok {
		return Event{}, fmt.Errorf("%w: %T is not registered", ErrType, e)
	}
	data, err := json.Marshal(e)
	if err != nil {
		return Event{}, fmt.Errorf("eventstore: encode %s: %w", t.name, err)
	}
	return Event{Type: t.name, Schema: t.schema, Data: data}, nil
}

func (c *codec[E]) decode(r Recorded) (e E, err error) {
	t, ok := c.byName[r.Type]
	if !ok || r.Schema > t.schema || r.Schema < 1 {
		return e, fmt.Errorf("%w: %s, schema %d, at version %d of %s", ErrType, r.Type, r.Schema, r.Version, r.Stream)
	}
	data := r.Data
	for s := r.Schema; s < t.schema; s++ {
		if data, err = t.upcasters[s-1](data); err != nil {
			return e, fmt.Errorf("eventstore: lift %s at version %d of %s from schema %d: %w", r.Type, r.Version, r.Stream, s,
				err)
		}
	}
	v, err := t.decode(data)
	if err != nil {
		return e, fmt.Errorf("eventstore: decode %s at version %d of %s: %w", r.Type, r.Version, r.Stream, err)
	}
	return v.(E), nil
}
