package eventstore

import (
	"encoding/json"
	"slices"
	"strings"
)

// Deleted is the type of the event that is left of a stream that was deleted. No other event has it.
const Deleted = "$deleted"

// Filter selects events for a reader. The zero Filter selects all. What says that a stream was deleted is selected by
// Categories alone.
type Filter struct {
	// Categories select the streams of aggregates with these categories: those whose names begin with the category and a
	// hyphen. Default: all streams.
	Categories []string
	// Types select events of these types. Default: all types.
	Types []string
}

// All reports whether the filter selects all events.
func (f Filter) All() bool { return len(f.Categories) == 0 && len(f.Types) == 0 }

// Selects reports whether the filter selects an event. It is for adapters.
func (f Filter) Selects(stream, eventType string) bool {
	of := func(category string) bool { return strings.HasPrefix(stream, category+"-") }
	return (len(f.Categories) == 0 || slices.ContainsFunc(f.Categories, of)) &&
		(len(f.Types) == 0 || eventType == Deleted || slices.Contains(f.Types, eventType))
}

// Deletion is the event of the type Deleted, with an id. It is for adapters.
func Deletion(id string) Event {
	return Event{ID: id, Type: Deleted, Schema: 1, Data: json.RawMessage("null"), Metadata: map[string]string{}}
}
