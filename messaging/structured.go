package messaging

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

const (
	structuredType = "application/cloudevents+json"
	batchType      = "application/cloudevents-batch+json"
)

// unwrapped is a delivery of a CloudEvent in structured mode, whose attributes are in its body. Dead letters and
// retries keep it as it came.
type unwrapped struct {
	Delivery
	e   Envelope
	err error // why it could not be read
}

// Envelope implements Delivery.
func (d *unwrapped) Envelope() Envelope { return d.e }

// unwrap returns d, or, where its body is a CloudEvent in structured mode, a delivery of the event.
func unwrap(d Delivery) Delivery {
	e := d.Envelope()
	switch mediaType(e.ContentType) {
	case structuredType:
		event, err := fromStructured(e)
		return &unwrapped{d, event, err}
	case batchType:
		return &unwrapped{d, e, errors.New("batches of CloudEvents are not supported")}
	}
	return d
}

// fromStructured reads the event from the body of an envelope. The topic stays what the message was routed by; a type
// that differs from it is in the header cloudevents_type. Extensions become headers.
func fromStructured(e Envelope) (Envelope, error) {
	var attributes map[string]json.RawMessage
	if err := json.Unmarshal(e.Body, &attributes); err != nil {
		return e, fmt.Errorf("a CloudEvent: %w", err)
	}
	headers := make(map[string]string, len(e.Headers)+len(attributes))
	for k, v := range e.Headers {
		headers[k] = v
	}
	event := Envelope{Type: e.Type, Headers: headers, ContentType: "application/json"}
	var own, version string
	fields := map[string]*string{"specversion": &version, "id": &event.ID, "type": &own, "source": &event.Source,
		"subject": &event.Key, "datacontenttype": &event.ContentType}
	for name, value := range attributes {
		var err error
		switch field := fields[name]; {
		case field != nil:
			err = json.Unmarshal(value, field)
		case name == "time":
			err = json.Unmarshal(value, &event.Time)
		case name == "data", name == "data_base64":
		default:
			headers[strings.ToLower(name)] = scalar(value)
		}
		if err != nil {
			return e, fmt.Errorf("a CloudEvent: %s: %w", name, err)
		}
	}
	if version != "1.0" || event.ID == "" || event.Source == "" || own == "" {
		return e, fmt.Errorf("a CloudEvent: want specversion 1.0, id, source and type; got %q, %q, %q, %q", version, event.ID,
			event.Source, own)
	}
	if own != event.Type {
		headers["cloudevents_type"] = own
	}
	if event.Time.IsZero() {
		event.Time = e.Time
	} else {
		event.Time = event.Time.UTC()
	}
	var err error
	event.Body, err = structuredData(attributes, event.ContentType)
	return event, err
}

// structuredData returns the data of an event: base64, JSON as it is, or a JSON string that holds text of another type.
func structuredData(attributes map[string]json.RawMessage, contentType string) (body []byte, err error) {
	if encoded, ok := attributes["data_base64"]; ok {
		if err := json.Unmarshal(encoded, &body); err != nil {
			return nil, fmt.Errorf("a CloudEvent: data_base64: %w", err)
		}
		return body, nil
	}
	data := attributes["data"]
	var text string
	if !isJSON(mediaType(contentType)) && json.Unmarshal(data, &text) == nil {
		return []byte(text), nil
	}
	return data, nil
}

// scalar returns a JSON string without its quotes, and another value as it is.
func scalar(value json.RawMessage) string {
	var s string
	if json.Unmarshal(value, &s) == nil {
		return s
	}
	return string(value)
}
