package remote

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/sillar-go/sillar/internal/id"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/cqrs"
)

// Broker is what a Caller needs of a broker.
type Broker interface {
	messaging.Publisher
	messaging.Subscriber
}

// CallerConfig tunes a Caller. The zero value is useful.
type CallerConfig struct {
	// Group begins the name of the queue of this caller's replies. Default "replies".
	Group string
	// Timeout bounds calls beside their contexts. Default 30s; negative: only the context does.
	Timeout time.Duration
	// Errors are those of the handlers that are called. Default none but validation.
	Errors Errors
	// Logger gets replies that come too late (debug). Default slog.Default().
	Logger *slog.Logger
}

// Caller calls handlers in other processes. It is safe for concurrent use.
type Caller struct {
	broker Broker
	cfg    CallerConfig
	topic  string // of its replies
	stream messaging.Stream
	done   chan struct{} // no more replies are received

	mu      sync.Mutex
	waiting map[string]chan messaging.Envelope // by the request's id
	err     error                              // why there are no more replies
}

// NewCaller makes a queue for the replies to calls, which is removed by Close. The error matches
// messaging.ErrUnsupported over a broker without Features.Ephemeral.
func NewCaller(ctx context.Context, broker Broker, cfg CallerConfig) (*Caller, error) {
	cfg.Group = cmp.Or(cfg.Group, "replies")
	cfg.Timeout = cmp.Or(cfg.Timeout, 30*time.Second)
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	c := &Caller{broker: broker, cfg: cfg, topic: replies + id.New(), done: make(chan struct{}),
		waiting: map[string]chan messaging.Envelope{}}
	s, err := broker.Subscribe(ctx, messaging.Subscription{Group: cfg.Group, Patterns: []string{c.topic}, Prefetch: 100,
		Ephemeral: true})
	if err != nil {
		return nil, fmt.Errorf("remote: subscribe to replies: %w", err)
	}
	c.stream = s
	go c.receive(context.WithoutCancel(ctx)) // Close ends the stream, and with it this goroutine
	return c, nil
}

// receive hands replies to those who wait, until the stream ends.
func (c *Caller) receive(ctx context.Context) {
	defer close(c.done)
	for {
		d, err := c.stream.Receive(ctx)
		if err != nil {
			if errors.Is(err, messaging.ErrClosed) {
				err = ErrClosed
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			c.err = err
			return
		}
		_ = d.Ack(ctx) // one that comes again has no one waiting
		e := d.Envelope()
		c.mu.Lock()
		waiting := c.waiting[e.Header(headerRequest)]
		delete(c.waiting, e.Header(headerRequest))
		c.mu.Unlock()
		if waiting == nil {
			c.cfg.Logger.Debug("remote: a reply came too late", "message_id", e.ID)
			continue
		}
		waiting <- e // there is room for one
	}
}

// Close ends the calls that wait, with ErrClosed, and removes the queue of the replies.
func (c *Caller) Close() error {
	err := c.stream.Close()
	<-c.done
	return err
}

// Call returns a handler that has the command or query handled by the group that handles the topic, and returns its
// result. The options are made for each request, such as the key that keeps the commands of an entity in order. No
// group for the topic is messaging.ErrUnroutable, where the broker notices.
func Call[C, R any](caller *Caller, topic string, options ...func(C) messaging.Option) cqrs.Handler[C, R] {
	return cqrs.HandlerFunc[C, R](func(ctx context.Context, c C) (r R, err error) {
		e, err := caller.call(ctx, topic, c, all(c, options))
		if err != nil {
			return r, err
		}
		if err := caller.cfg.Errors.failure(e.Header(headerCode), e.Header(headerText)); err != nil {
			return r, err
		}
		if err := json.Unmarshal(e.Body, &r); err != nil {
			return r, fmt.Errorf("%w: the reply to %s: %w", messaging.ErrDecode, topic, err)
		}
		return r, nil
	})
}

// call publishes a request and waits for its reply.
func (c *Caller) call(ctx context.Context, topic string, request any, opts []messaging.Option) (messaging.Envelope,
	error) {
	if c.cfg.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.cfg.Timeout)
		defer cancel()
	}
	reply, requestID := make(chan messaging.Envelope, 1), id.New()
	opts = append(opts, messaging.WithID(requestID), messaging.WithHeader(headerReplyTo, c.topic))
	if deadline, ok := ctx.Deadline(); ok {
		opts = append(opts, messaging.WithHeader(headerDeadline, deadline.UTC().Format(time.RFC3339Nano)))
	}
	c.mu.Lock()
	err := c.err
	c.waiting[requestID] = reply
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.waiting, requestID)
		c.mu.Unlock()
	}()
	if err != nil {
		return messaging.Envelope{}, err
	}
	if err := c.broker.Publish(ctx, topic, request, opts...); err != nil {
		return messaging.Envelope{}, err
	}
	select {
	case e := <-reply:
		return e, nil
	case <-ctx.Done():
		return messaging.Envelope{}, fmt.Errorf("%w: %s: %w", ErrNoReply, topic, ctx.Err())
	case <-c.done:
		c.mu.Lock()
		defer c.mu.Unlock()
		return messaging.Envelope{}, fmt.Errorf("%w: %s: %w", ErrNoReply, topic, c.err)
	}
}
