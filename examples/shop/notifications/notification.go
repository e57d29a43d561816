// Package notifications is the service that writes to people: it follows what the other services tell, and sends
// e-mail.
//
// An event becomes a stored notification exactly once (inbox); a sender sends what is stored, at least once. What the
// users are called and where they are reached it knows from users.* alone: no other service is asked.
package notifications

import (
	"bytes"
	"context"
	"text/template"

	"github.com/sillar-go/sillar/repository"
)

// States of a notification.
const (
	Pending = "pending"
	Sent    = "sent"
	// Kept says that there is nowhere to send to: the notification can be read, and nothing more.
	Kept = "kept"
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
	CorrelationID string
}

var (
	byUser   = repository.Text(func(n *Notification) *string { return &n.UserID })
	byOrder  = repository.Text(func(n *Notification) *string { return &n.OrderID })
	byStatus = repository.Text(func(n *Notification) *string { return &n.Status })
)

// Contact is how a user is reached. Its id is the user's.
type Contact struct {
	repository.Meta
	Username, Email string
	Gone            bool
}

// Mailer is the port by which e-mail leaves.
type Mailer interface {
	Send(ctx context.Context, to, subject, text string) error
}

// letter is what an event is told with.
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
	"users.created":    write("Welcome, {{.Username}}", "Hello {{.Username}},\n\nyour account is ready.\n"),
	"users.updated":    write("Your profile was changed", "Hello {{.Username}},\n\nyour profile was changed. If it was not you, write to us.\n"),
	"users.deleted":    write("Good-bye, {{.Username}}", "Hello {{.Username}},\n\nyour account is gone, as you wished.\n"),
	"orders.created":   write("We have your order {{.OrderID}}", "Hello {{.Username}},\n\nthank you for your order {{.OrderID}} over {{.Total}}.\n"),
	"orders.paid":      write("Your order {{.OrderID}} is paid", "Hello {{.Username}},\n\nyour order {{.OrderID}} over {{.Total}} is paid, and will be sent soon.\n"),
	"orders.shipped":   write("Your order {{.OrderID}} is on its way", "Hello {{.Username}},\n\nyour order {{.OrderID}} has left our house.\n"),
	"orders.delivered": write("Your order {{.OrderID}} has arrived", "Hello {{.Username}},\n\nyour order {{.OrderID}} has arrived.\n"),
	"orders.cancelled": write("Your order {{.OrderID}} was cancelled", "Hello {{.Username}},\n\nyour order {{.OrderID}} was cancelled: {{.Reason}}.\n"),
}
