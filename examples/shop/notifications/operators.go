package notifications

import (
	"context"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/sillar-go/sillar/examples/shop/internal/platform"
	"github.com/sillar-go/sillar/messaging"
)

// deadView is a dead letter as operators see it, without its body, which may hold personal data.
type deadView struct {
	ID       string    `json:"id"`
	Topic    string    `json:"topic"`
	Key      string    `json:"key,omitempty"`
	Source   string    `json:"source"`
	Time     time.Time `json:"time"`
	Reason   string    `json:"reason"`
	Attempts int       `json:"attempts"`
	Bytes    int       `json:"bytes"`
}

type deadInput struct {
	Group string `query:"group" minLength:"1" maxLength:"200" default:"notifications" doc:"The group of handlers, which is a queue."`
	Limit int    `query:"limit" minimum:"1" maximum:"1000" default:"50"`
}

type redriveInput struct {
	Body struct {
		Group string `json:"group" minLength:"1" maxLength:"200"`
		Limit int    `json:"limit" minimum:"1" maximum:"1000"`
	}
}

type redriven struct {
	Moved int `json:"moved"`
}

// operators registers the operations on dead letters. All services share one broker, so every group can be reached from
// here.
func operators(s *platform.Service, broker messaging.Broker) {
	admin := platform.Only("admin")
	huma.Register(s.API, platform.Op("GET", "/api/v1/dead-letters", "List the dead letters of a group, oldest first",
		admin),
		func(ctx context.Context, in *deadInput) (*platform.Body[platform.List[deadView]], error) {
			dead, err := broker.DeadLetters(ctx, in.Group, in.Limit)
			if err != nil {
				return nil, err
			}
			out := platform.List[deadView]{Items: []deadView{}}
			for _, d := range dead {
				out.Items = append(out.Items, deadView{d.ID, d.Type, d.Key, d.Source, d.Time, d.Reason, d.Attempts, len(d.Body)})
			}
			return platform.Reply(out), nil
		})
	huma.Register(s.API, platform.Op("POST", "/api/v1/dead-letters/redrive", "Move dead letters back to their group",
		admin),
		func(ctx context.Context, in *redriveInput) (*platform.Body[redriven], error) {
			n, err := broker.Redrive(ctx, in.Body.Group, in.Body.Limit)
			if err != nil {
				return nil, err
			}
			s.Log.InfoContext(ctx, "dead letters were moved back to their group", "group", in.Body.Group, "count", n, "by",
				platform.Caller(ctx).ID)
			return platform.Reply(redriven{n}), nil
		})
}
