package notifications

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"strconv"
	"time"

	"github.com/wneessen/go-mail"

	"github.com/sillar-go/sillar/observability"
	"github.com/sillar-go/sillar/repository"
)

// smtp sends by a mail server.
type smtp struct {
	client *mail.Client
	from   string
}

// newSMTP reads smtp://user:password@host:port?from=shop@example.com&tls=off.
func newSMTP(dsn string) (*smtp, error) {
	u, err := url.Parse(dsn)
	if err != nil || u.Scheme != "smtp" || u.Hostname() == "" {
		return nil, fmt.Errorf("notifications: the mail server must be given as smtp://user:password@host:port")
	}
	opts := []mail.Option{mail.WithTimeout(10 * time.Second)}
	if u.Port() != "" {
		port, err := strconv.Atoi(u.Port())
		if err != nil {
			return nil, fmt.Errorf("notifications: the port of the mail server is no number")
		}
		opts = append(opts, mail.WithPort(port))
	}
	if u.Query().Get("tls") == "off" {
		opts = append(opts, mail.WithTLSPolicy(mail.NoTLS))
	}
	if u.User != nil {
		password, _ := u.User.Password()
		opts = append(opts, mail.WithSMTPAuth(mail.SMTPAuthPlain), mail.WithUsername(u.User.Username()), mail.WithPassword(password))
	}
	c, err := mail.NewClient(u.Hostname(), opts...)
	if err != nil {
		return nil, fmt.Errorf("notifications: mail server at %s: %w", u.Hostname(), err)
	}
	from := u.Query().Get("from")
	if from == "" {
		from = "shop@example.com"
	}
	return &smtp{c, from}, nil
}

// Send implements Mailer.
func (s *smtp) Send(ctx context.Context, to, subject, text string) error {
	m := mail.NewMsg()
	if err := m.From(s.from); err != nil {
		return err
	}
	if err := m.To(to); err != nil {
		return err
	}
	m.Subject(subject)
	m.SetBodyString(mail.TypeTextPlain, text)
	return s.client.DialAndSendWithContext(ctx, m)
}

// sender sends what is pending, again and again until it is sent: an e-mail may arrive twice, and is never lost.
type sender struct {
	notifications repository.Repository[Notification]
	mailer        Mailer
	log           *slog.Logger
	every         time.Duration
}

// Run sends until ctx ends.
func (s *sender) Run(ctx context.Context) error {
	ticker := time.NewTicker(s.every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			s.sweep(ctx)
		}
	}
}

func (s *sender) sweep(ctx context.Context) {
	for n, err := range s.notifications.Each(ctx, repository.Query[Notification]{Where: byStatus.Eq(Pending)}) {
		if err != nil {
			if ctx.Err() == nil {
				s.log.ErrorContext(ctx, "pending notifications cannot be read", "error", err)
			}
			return
		}
		ctx := observability.WithCorrelationID(ctx, n.CorrelationID)
		failed := s.mailer.Send(ctx, n.Recipient, n.Subject, n.Text)
		if ctx.Err() != nil {
			return
		}
		_, err := s.notifications.Update(ctx, n.ID, func(_ context.Context, n *Notification) error {
			n.Attempts++
			if failed == nil {
				n.Status = Sent
			}
			return nil
		})
		if failed != nil || err != nil {
			s.log.WarnContext(ctx, "a notification was not sent, it will be tried again", "notification", n.ID, "attempt", n.Attempts+1, "error", failed, "store", err)
			return // the mail server is down, most likely: do not hammer it with the rest
		}
		s.log.InfoContext(ctx, "notification sent", "notification", n.ID, "event", n.Event, "order_id", n.OrderID)
	}
}
