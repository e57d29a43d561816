// Package remote carries commands and queries over a broker to the handlers of package cqrs, which are the same as in
// process.
//
//	remote.Handle(group, "orders.place", place, broker, remote.Config{Errors: orders.Errors}) // in the service
//
//	caller, err := remote.NewCaller(ctx, broker, remote.CallerConfig{Errors: orders.Errors})  // in its client
//	place := remote.Call[PlaceOrder, Order](caller, "orders.place")                           // a cqrs.Handler
//	order, err := place.Handle(ctx, PlaceOrder{...})
//
//	notify := remote.Send[Notify](broker, "mail.notify") // without a reply: nil means that the broker has it
//
// Commands and queries are messages to one group, which is what has several processes share them.
//
// # Guarantees
//
//   - Call returns what the handler returned, within its context or CallerConfig.Timeout. An error that Config.Errors
//     names is returned as an *Error that matches it; validation (cqrs.ErrInvalid) is matched too. Another one is
//     ErrFailed: its text stays with the handler.
//   - An error of a call is its reply, and no reason to try again: the caller decides. A request whose deadline has
//     passed is not handled any more.
//   - A command of Send is handled at least once: an error has it tried again, and one that Config.Errors names, or
//     cqrs.ErrInvalid, makes it a dead letter at once.
//   - Correlation id and trace context travel with both.
//
// # What it does not do
//
// A call without a reply in time (ErrNoReply) may have been handled, and when a connection or a process is lost a
// request may be handled twice: commands are to be idempotent, or their group has a Deduplicator, which acknowledges
// the second delivery without a reply. A request that does not decode is a dead letter without a reply. Deadlines
// compare the clocks of two machines. Replies are JSON, and need a broker with Features.Ephemeral (RabbitMQ, in
// process): over others NewCaller returns messaging.ErrUnsupported, and Send works.
package remote

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/cqrs"
)

// Headers of requests and replies.
const (
	headerReplyTo  = "reply-to"    // the topic of the reply
	headerDeadline = "deadline"    // RFC 3339
	headerRequest  = "in-reply-to" // the id of the request
	headerCode     = "error-code"
	headerText     = "error-text"
	// replies begins the topics of replies: a request cannot have its reply published elsewhere.
	replies = "sillar.replies."
)

// Codes that are always known.
const (
	codeFailed  = "failed"
	codeInvalid = "invalid"
)

// Errors of calls, to be compared with errors.Is.
var (
	// ErrNoReply says that no reply came in time. The request may or may not have been handled.
	ErrNoReply = errors.New("remote: no reply in time")
	// ErrFailed says that the handler failed with an error that Config.Errors does not name.
	ErrFailed = errors.New("remote: the handler failed")
	// ErrClosed is returned by calls of a Caller that was closed.
	ErrClosed = errors.New("remote: the caller is closed")
)

// Error is an error of a handler in another process. It matches the error that its code stands for.
type Error struct {
	// Code is the name of the error in Config.Errors, or "invalid".
	Code string
	// Text is the text of that error and, of a validation, what the handler's error says.
	Text string
	err  error
}

// Error implements error.
func (e *Error) Error() string { return "remote: " + e.Text }

// Unwrap returns what the code stands for.
func (e *Error) Unwrap() error { return e.err }

// Errors names, by codes, the errors that callers are to recognize. Service and client have the same.
type Errors map[string]error

// code returns the code of an error, the first in the order of the codes, or "".
func (e Errors) code(err error) string {
	for _, code := range slices.Sorted(maps.Keys(e)) {
		if errors.Is(err, e[code]) {
			return code
		}
	}
	if errors.Is(err, cqrs.ErrInvalid) {
		return codeInvalid
	}
	return ""
}

// Config tunes Handle. The zero value is useful.
type Config struct {
	// Errors are those that callers are to recognize, and that no other attempt would mend. Default none but validation.
	Errors Errors
	// Logger gets replies that cannot be published, and requests whose deadline has passed (warn). Default
	// slog.Default().
	Logger *slog.Logger
}

// Handle has a group handle the commands or queries of a topic, and publishes the replies of calls by pub.
func Handle[C, R any](g *messaging.Group, topic string, h cqrs.Handler[C, R], pub messaging.Publisher, cfg Config) {
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	messaging.Handle(g, topic, func(ctx context.Context, m messaging.Message[C]) error {
		replyTo := m.Header(headerReplyTo)
		if !strings.HasPrefix(replyTo, replies) {
			_, err := h.Handle(ctx, m.Data)
			if cfg.Errors.code(err) != "" {
				return messaging.Permanent(err)
			}
			return err
		}
		deadline, err := time.Parse(time.RFC3339Nano, m.Header(headerDeadline))
		bounded := err == nil
		if bounded {
			if !time.Now().Before(deadline) {
				cfg.Logger.WarnContext(ctx, "remote: a request came after its deadline and is not handled", "topic", topic,
					"message_id", m.ID)
				return nil
			}
			var cancel context.CancelFunc
			ctx, cancel = context.WithDeadline(ctx, deadline)
			defer cancel()
		}
		r, err := h.Handle(ctx, m.Data)
		if errors.Is(ctx.Err(), context.Canceled) { // by a drain: another process may handle it
			return cmp.Or(err, ctx.Err())
		}
		if err != nil && bounded && !time.Now().Before(deadline) { // the caller has stopped to wait, because of the same
			cfg.Logger.WarnContext(ctx, "remote: a handler did not end before the request's deadline", "topic", topic,
				"message_id", m.ID, "error", err)
			return nil
		}
		reply(context.WithoutCancel(ctx), pub, replyTo, m.Envelope, r, err, cfg)
		return nil
	})
}

// reply publishes the outcome of a request. The handler has done its work: a reply that cannot be published leaves the
// caller without one.
func reply(ctx context.Context, pub messaging.Publisher, to string, request messaging.Envelope, result any, err error,
	cfg Config) {
	opts := []messaging.Option{messaging.WithHeader(headerRequest, request.ID)}
	if err != nil {
		code := cfg.Errors.code(err)
		text := ""
		switch {
		case code == "":
			code = codeFailed
			cfg.Logger.WarnContext(ctx, "remote: a handler failed", "topic", request.Type, "message_id", request.ID,
				"error", err)
		case cfg.Errors[code] == nil:
			text = err.Error()
		}
		opts = append(opts, messaging.WithHeader(headerCode, code),
			messaging.WithHeader(headerText, printable(text)))
		result = struct{}{}
	}
	err = pub.Publish(ctx, to, result, opts...)
	if errors.Is(err, messaging.ErrInvalid) { // such as a result that does not encode: the caller should not wait in vain
		cfg.Logger.WarnContext(ctx, "remote: a result cannot be sent", "topic", request.Type, "message_id", request.ID,
			"error", err)
		err = pub.Publish(ctx, to, struct{}{}, messaging.WithHeader(headerRequest, request.ID),
			messaging.WithHeader(headerCode, codeFailed))
	}
	if err != nil {
		cfg.Logger.WarnContext(ctx, "remote: a reply could not be published", "topic", request.Type, "message_id", request.ID,
			"error", err)
	}
}

// maxText bounds the text of an error in a header.
const maxText = 4 << 10

// printable makes a text one that a header holds.
func printable(text string) string {
	text = strings.ToValidUTF8(text[:min(len(text), maxText)], "")
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
}

// failure makes an error of a reply's code, or nil of none.
func (e Errors) failure(code, text string) error {
	known := e[code]
	switch {
	case code == "":
		return nil
	case known != nil:
		return &Error{Code: code, Text: known.Error(), err: known}
	case code == codeInvalid:
		return &Error{Code: code, Text: text, err: cqrs.ErrInvalid}
	}
	return fmt.Errorf("%w: %s", ErrFailed, code)
}

// Send returns a handler that publishes commands, by a broker or an outbox, to the group that handles the topic. It
// returns when they are published: nil says nothing about their outcome. The options are made for each, such as the key
// that keeps the commands of an entity in order.
func Send[C any](pub messaging.Publisher, topic string, options ...func(C) messaging.Option) cqrs.Handler[C, struct{}] {
	return cqrs.HandlerFunc[C, struct{}](func(ctx context.Context, c C) (struct{}, error) {
		return struct{}{}, pub.Publish(ctx, topic, c, all(c, options)...)
	})
}

func all[C any](c C, options []func(C) messaging.Option) (opts []messaging.Option) {
	for _, o := range options {
		opts = append(opts, o(c))
	}
	return opts
}
