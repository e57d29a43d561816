// Package record has the forms in which the stores of tokens and API keys keep times and subjects.
package record

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/sillar-go/sillar/authn"
)

// Micros returns the microseconds since 1970 of a time, 0 for the zero time.
func Micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// Time is the inverse of Micros, in UTC.
func Time(micros int64) time.Time {
	if micros == 0 {
		return time.Time{}
	}
	return time.UnixMicro(micros).UTC()
}

// Profile returns the JSON of a subject without its id, which is a column or field of its own.
func Profile(s authn.Subject) (string, error) {
	s.ID = ""
	data, err := json.Marshal(s)
	if err != nil {
		return "", fmt.Errorf("encode the subject: %w", err)
	}
	return string(data), nil
}

// Subject is the inverse of Profile.
func Subject(id, profile string) (authn.Subject, error) {
	var s authn.Subject
	if err := json.Unmarshal([]byte(profile), &s); err != nil {
		return authn.Subject{}, fmt.Errorf("decode the subject: %w", err)
	}
	s.ID = id
	return s, nil
}
