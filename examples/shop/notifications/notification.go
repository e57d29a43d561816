// Package notifications is the service that notifies users: it consumes the events of the other services and sends
// e-mail.
//
// An event becomes a stored notification exactly once (inbox); a sender sends what is stored, at least once. Names and
// addresses of users come from users.* events alone; the service calls no other service.
package notifications

import (
	"bytes"
	"context"
	"errors"
	"text/template"
	"time"

	"github.com/sillar-go/sillar/repository"
)

// States of a notification.
const (
	Pending = "pending"
	Sent    = "sent"
	// Kept means that no mail server is configured: the notification is stored for reading.
	Kept = "kept"
	// Refused means that the mail server rejected the notification permanently.
	Refused = "refused"
)

// Notification is one e-mail to one user.
type Notification struct {
	repository.Meta
	UserID        string
	OrderID       string
	Event         string // the topic that caused it
	Recipient     string
	Subject       string
	Text          string
	Status        string
	Attempts      int64
	DueAt         time.Time // when to send it, if it is pending
	CorrelationID string
}

var (
	byUser   = repository.Text(func(n *Notification) *string { return &n.UserID })
	byOrder  = repository.Text(func(n *Notification) *string { return &n.OrderID })
	byStatus = repository.Text(func(n *Notification) *string { return &n.Status })
	byDue    = repository.Time(func(n *Notification) *time.Time { return &n.DueAt })
)

// claim reserves the notification for the caller until the lease expires.
func (n *Notification) claim(now time.Time, lease time.Duration) error {
	if n.Status != Pending || n.DueAt.After(now) {
		return errTaken
	}
	n.Attempts++
	n.DueAt = now.Add(lease)
	return nil
}

var errTaken = errors.New("notifications: another process sends it, or has")

// Contact is the address of a user, under the user's ID.
type Contact struct {
	repository.Meta
	Username, Email string
	UserVersion     int64 `repo:"told"` // of the user that this is a copy of
	Gone            bool
}

// Mailer is the port to the mail server. An error is one of the two below, or else means that the server is
// unreachable.
type Mailer interface {
	Send(ctx context.Context, to, subject, text string) error
}

// Errors of a Mailer about the e-mail itself, to be compared with errors.Is.
var (
	// ErrRefused says that it will never be taken, such as for an address that does not exist.
	ErrRefused = errors.New("notifications: the e-mail is refused")
	// ErrLater says that it may be taken later.
	ErrLater = errors.New("notifications: the e-mail is not taken now")
)

// letter holds the templates of the e-mail about an event.
type letter struct{ subject, text *template.Template }

func write(subject, text string) letter {
	return letter{template.Must(template.New("").Parse(subject)), template.Must(template.New("").Parse(text))}
}

func (l letter) render(data any) (subject, text string, err error) {
	var s, t bytes.Buffer
	if err := l.subject.Execute(&s, data); err != nil {
		return "", "", err
	}
	err = l.text.Execute(&t, data)
	return s.String(), t.String(), err
}

var letters = map[string]letter{
	"users.created": write("Welcome, {{.Username}}", "Hello {{.Username}},\n\nyour account is ready.\n"),
	"users.updated": write("Your profile was changed",
		"Hello {{.Username}},\n\nyour profile was changed. If it was not you, write to us.\n"),
	"users.deleted": write("Good-bye, {{.Username}}",
		"Hello {{.Username}},\n\nyour account was deleted, as you requested.\n"),
	"orders.created": write("We have your order {{.OrderID}}",
		"Hello {{.Username}},\n\nthank you for your order {{.OrderID}} over {{.Total}}.\n"),
	"orders.paid": write("Your order {{.OrderID}} is paid",
		"Hello {{.Username}},\n\nyour order {{.OrderID}} over {{.Total}} is paid, and will be sent soon.\n"),
	"orders.shipped": write("Your order {{.OrderID}} is on its way",
		"Hello {{.Username}},\n\nyour order {{.OrderID}} has left our warehouse.\n"),
	"orders.delivered": write("Your order {{.OrderID}} has arrived",
		"Hello {{.Username}},\n\nyour order {{.OrderID}} has arrived.\n"),
	"orders.cancelled": write("Your order {{.OrderID}} was cancelled",
		"Hello {{.Username}},\n\nyour order {{.OrderID}} was cancelled: {{.Reason}}.\n"),
}
