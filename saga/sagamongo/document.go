package sagamongo

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/sillar-go/sillar/saga"
)

// document is a saga as it is stored. Times are microseconds since 1970, UTC: a date holds milliseconds only.
type document struct {
	ID         string            `bson:"_id"`
	Name       string            `bson:"name"`
	Version    int               `bson:"version"`
	Shape      string            `bson:"shape"`
	Status     saga.Status       `bson:"status"`
	Cursor     int               `bson:"cursor"`
	State      string            `bson:"state"`
	Steps      string            `bson:"steps"`
	FailedStep string            `bson:"failed_step"`
	Cause      string            `bson:"cause"`
	Headers    map[string]string `bson:"headers"`
	Attributes []string          `bson:"attributes,omitempty"` // for the index; Headers hold them
	Audit      string            `bson:"audit"`
	Revision   int64             `bson:"revision"`
	Fence      int64             `bson:"fence"`
	Owner      string            `bson:"owner"`
	WakeAt     int64             `bson:"wake_at"`
	Signals    []signal          `bson:"signals"`
	SignalSeq  int64             `bson:"signal_seq"`
	CreatedAt  int64             `bson:"created_at"`
	UpdatedAt  int64             `bson:"updated_at"`
}

// signal is not a field named like the signal: names may hold what field names must not.
type signal struct {
	Name    string `bson:"name"`
	Payload []byte `bson:"payload"`
}

func encode(r saga.Record) (document, error) {
	steps, err1 := json.Marshal(r.Steps)
	audit, err2 := json.Marshal(r.Audit)
	if err := errors.Join(err1, err2); err != nil {
		return document{}, fmt.Errorf("sagamongo: encode %s: %w", r.ID, err)
	}
	return document{
		ID:      r.ID,
		Name:    r.Name,
		Version: r.Version,
		Shape:   r.Shape,
		Status:  r.Status,
		Cursor:  r.Cursor,
		State:   string(r.State),
		Steps: string(
			steps,
		),
		FailedStep: r.FailedStep,
		Cause:      r.Cause,
		Headers:    r.Headers,
		Audit:      string(audit),
		Revision:   r.Revision,
		Fence:      r.Fence,
		Owner:      r.Owner,
		WakeAt:     r.WakeAt.UnixMicro(),
		SignalSeq:  r.SignalSeq,
	}, nil
}
