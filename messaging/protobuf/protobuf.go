// Package protobuf is the messaging.Codec of Protocol Buffers.
//
//	err = broker.Publish(ctx, "orders.created", &orderpb.Created{Id: "42"}, messaging.WithCodec(protobuf.Codec{}))
//
//	r, err := messaging.NewRouter(broker, messaging.RouterConfig{Codecs: []messaging.Codec{protobuf.Codec{}}})
//	messaging.Handle(g, "orders.created", func(ctx context.Context, m messaging.Message[*orderpb.Created]) error { ... })
//
// A handler's type is a pointer to a generated message. The body is the message alone, without its type's name or a
// schema's id: the topic says which message it is.
package protobuf

import (
	"cmp"
	"fmt"
	"reflect"

	"google.golang.org/protobuf/proto"

	"github.com/sillar-go/sillar/messaging"
)

// Codec encodes and decodes generated messages. The zero value is useful.
type Codec struct {
	// Type is the content type. Default "application/protobuf". Other programs also send "application/x-protobuf": add a
	// second Codec for it.
	Type string
}

var _ messaging.Codec = Codec{}

// ContentType implements messaging.Codec.
func (c Codec) ContentType() string { return cmp.Or(c.Type, "application/protobuf") }

// Encode implements messaging.Codec.
func (Codec) Encode(payload any) ([]byte, error) {
	m, ok := payload.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("protobuf: a %T is no proto.Message", payload)
	}
	b, err := proto.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("protobuf: %w", err)
	}
	return b, nil
}

// Decode implements messaging.Codec. It makes a message where into points to a nil pointer.
func (Codec) Decode(body []byte, into any) error {
	m, ok := into.(proto.Message)
	if !ok {
		if m, ok = newMessage(into); !ok {
			return fmt.Errorf("protobuf: the handler's type, of %T, is no pointer to a generated message", into)
		}
	}
	if err := proto.Unmarshal(body, m); err != nil {
		return fmt.Errorf("protobuf: %w", err)
	}
	return nil
}

// newMessage sets the pointer that into points to.
func newMessage(into any) (proto.Message, bool) {
	v := reflect.ValueOf(into)
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Pointer {
		return nil, false
	}
	made := reflect.New(v.Elem().Type().Elem())
	m, ok := made.Interface().(proto.Message)
	if ok {
		v.Elem().Set(made)
	}
	return m, ok
}
