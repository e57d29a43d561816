package messaging

import (
	"encoding/json"
	"fmt"
	"mime"
	"strings"
)

// Codec encodes payloads and decodes bodies of one content type. It is safe for concurrent use. JSON needs
// none; package protobuf has that of Protocol Buffers.
type Codec interface {
	// ContentType is the media type, such as "application/x-protobuf".
	ContentType() string
	// Encode makes a body of a payload.
	Encode(payload any) ([]byte, error)
	// Decode reads a body into a pointer to the handler's type.
	Decode(body []byte, into any) error
}

// WithCodec encodes the payload with c and sets its content type. Consumers need it in RouterConfig.Codecs. Default
// JSON.
func WithCodec(c Codec) Option {
	return func(e *Envelope) { e.ContentType, e.codec = c.ContentType(), c }
}

// WithContentType sets the content type of the body: of a []byte payload any, of another one a JSON type such as
// "application/vnd.acme.order+json". Default "application/json".
func WithContentType(contentType string) Option {
	return func(e *Envelope) { e.ContentType, e.codec = contentType, nil }
}

// encode sets the body of an envelope.
func encode(e *Envelope, payload any) (err error) {
	codec := e.codec
	e.codec = nil
	switch p := payload.(type) {
	case []byte:
		if codec == nil {
			e.Body = p
			return nil
		}
	case json.RawMessage:
		if codec == nil {
			e.Body = p
			return nil
		}
	}
	switch {
	case codec != nil:
		e.Body, err = codec.Encode(payload)
	case e.ContentType == "" || isJSON(mediaType(e.ContentType)):
		e.Body, err = json.Marshal(payload)
	default:
		err = fmt.Errorf("no codec for %q: want WithCodec, or a []byte payload", e.ContentType)
	}
	if err != nil {
		return fmt.Errorf("%w: %s: encode: %w", ErrInvalid, e.Type, err)
	}
	return nil
}

// codecs are the codecs of a router by media type.
type codecs map[string]Codec

func newCodecs(list []Codec) (codecs, error) {
	c := codecs{}
	for _, codec := range list {
		t := mediaType(codec.ContentType())
		if t == "" || c[t] != nil {
			return nil, fmt.Errorf("messaging: RouterConfig.Codecs: %q: want a content type, once", codec.ContentType())
		}
		c[t] = codec
	}
	return c, nil
}

// decode reads a body by its content type: a configured codec's first; []byte and json.RawMessage as they are; JSON,
// which is also what a body without a type, or with one of the two that say nothing about it, is taken for.
func (c codecs) decode(contentType string, body []byte, into any) error {
	t := mediaType(contentType)
	if codec := c[t]; codec != nil {
		return codec.Decode(body, into)
	}
	switch p := into.(type) {
	case *[]byte:
		*p = body
		return nil
	case *json.RawMessage:
		*p = body
		return nil
	}
	if isJSON(t) || t == "" || t == "text/plain" || t == "application/octet-stream" {
		return json.Unmarshal(body, into)
	}
	return fmt.Errorf("no codec for content type %q", contentType)
}

func isJSON(mediaType string) bool {
	return mediaType == "application/json" || mediaType == "text/json" || strings.HasSuffix(mediaType, "+json")
}

// mediaType returns a content type in lower case without its parameters.
func mediaType(contentType string) string {
	if contentType == "application/json" || contentType == "" { // most are, and need no parsing
		return contentType
	}
	if t, _, err := mime.ParseMediaType(contentType); err == nil {
		return t
	}
	t, _, _ := strings.Cut(contentType, ";")
	return strings.ToLower(strings.TrimSpace(t))
}
