package notifications

import (
	"context"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/sillar-go/sillar/examples/shop/internal/platform"
	"github.com/sillar-go/sillar/messaging"
)

// deadView is a dead letter as operators see it, without its body, which may hold what is nobody's business.
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

// operators hangs in what operators do with messages that were given up. All services have one broker, so that any group
// is reached from here.
func operators(s *platform.Service, broker messaging.Broker) {
	admin := platform.Only("admin")
	huma.Register(s.API, platform.Op("GET", "/api/v1/dead-letters", "List messages that a group has given up, oldest first", admin),
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
	huma.Register(s.API, platform.Op("POST", "/api/v1/dead-letters/redrive", "Give a group its dead letters again", admin),
		func(ctx context.Context, in *redriveInput) (*platform.Body[redriven], error) {
			n, err := broker.Redrive(ctx, in.Body.Group, in.Body.Limit)
			if err != nil {
				return nil, err
			}
			s.Log.InfoContext(ctx, "dead letters go to their group again", "group", in.Body.Group, "count", n, "by", platform.Caller(ctx).ID)
			return platform.Reply(redriven{n}), nil
		})
}
