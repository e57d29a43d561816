// Package carrier lets propagators read and write the headers of events.
package carrier

import "strings"

// Carrier is a propagation.TextMapCarrier over the headers of an event, whose names are lower case.
type Carrier map[string]string

// Get implements propagation.TextMapCarrier.
func (h Carrier) Get(name string) string { return h[strings.ToLower(name)] }

// Set implements propagation.TextMapCarrier.
func (h Carrier) Set(name, value string) { h[strings.ToLower(name)] = value }

// Keys implements propagation.TextMapCarrier.
func (h Carrier) Keys() []string {
	keys := make([]string, 0, len(h))
	for k := range h {
		keys = append(keys, k)
	}
	return keys
}
