package platform

import (
	"context"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/sillar-go/sillar/messaging/outbox"
)

// heldView is an event that the outbox holds, as operators see it, without its body, which may hold personal data.
type heldView struct {
	Ref      string    `json:"ref"`
	ID       string    `json:"id"`
	Topic    string    `json:"topic"`
	Key      string    `json:"key,omitempty"`
	Time     time.Time `json:"time"`
	Attempts int       `json:"attempts"`
	Until    time.Time `json:"until" doc:"When the relay tries it again."`
	StopsKey bool      `json:"stops_key" doc:"Whether later events of the key wait for it."`
}

type heldInput struct {
	Limit int `query:"limit" minimum:"1" maximum:"1000" default:"50"`
}

type refsInput struct {
	Body struct {
		Refs []string `json:"refs" minItems:"1" maxItems:"1000" doc:"Held events, by ref."`
	}
}

type changed struct {
	Changed int64 `json:"changed"`
}

// heldEvents registers the operations on the events that the service's outbox holds.
func (s *Service) heldEvents(store outbox.HeldStore) {
	admin := Only("admin")
	const path = "/api/v1/held-events"
	huma.Register(s.API, Op("GET", path, "List the events that the outbox holds, the one that is tried next first", admin),
		func(ctx context.Context, in *heldInput) (*Body[List[heldView]], error) {
			held, err := store.ListHeld(ctx, in.Limit)
			if err != nil {
				return nil, err
			}
			out := List[heldView]{Items: []heldView{}}
			for _, h := range held {
				out.Items = append(out.Items, heldView{h.Ref, h.ID, h.Type, h.Key, h.Time, h.Attempts, h.Until, h.StopsKey})
			}
			return Reply(out), nil
		})
	for _, c := range []struct {
		verb, summary, log string
		change             func(ctx context.Context, refs ...string) (int64, error)
	}{
		{"publish", "Publish held events now", "held events are tried at once", store.RetryHeld},
		{"skip", "Let later events of their keys pass held events", "held events no longer stop their keys", store.SkipHeld},
		{"drop", "Delete held events without publishing them", "held events were dropped", store.DropHeld},
	} {
		huma.Register(s.API, Op("POST", path+"/"+c.verb, c.summary, admin),
			func(ctx context.Context, in *refsInput) (*Body[changed], error) {
				n, err := c.change(ctx, in.Body.Refs...)
				if err != nil {
					return nil, err
				}
				s.Log.InfoContext(ctx, c.log, "count", n, "by", Caller(ctx).ID)
				return Reply(changed{n}), nil
			})
	}
}
