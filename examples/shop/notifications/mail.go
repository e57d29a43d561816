package notifications

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strconv"
	"time"

	"github.com/wneessen/go-mail"

	"github.com/sillar-go/sillar/observability"
	"github.com/sillar-go/sillar/repository"
)

// smtp sends through a mail server.
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
		opts = append(opts, mail.WithSMTPAuth(mail.SMTPAuthPlain), mail.WithUsername(u.User.Username()),
			mail.WithPassword(password))
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
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	m.Subject(subject)
	m.SetBodyString(mail.TypeTextPlain, text)
	err := s.client.DialAndSendWithContext(ctx, m)
	var answer *mail.SendError
	if !errors.As(err, &answer) {
		return err
	}
	switch answer.Reason {
	case mail.ErrSMTPRcptTo, mail.ErrSMTPData, mail.ErrSMTPDataClose, mail.ErrNoUnencoded:
		switch code := answer.ErrorCode(); {
		case code >= 500:
			return fmt.Errorf("%w: %w", ErrRefused, err)
		case code >= 400:
			return fmt.Errorf("%w: %w", ErrLater, err)
		}
	}
	return err
}

// sender sends pending notifications and retries each until the server accepts or permanently rejects it. A crash may
// send an e-mail twice and loses none. One process at a time sends each notification.
type sender struct {
	notifications repository.Repository[Notification]
	mailer        Mailer
	log           *slog.Logger
	every         time.Duration
}

// lease is how long a process has for an e-mail before another one may send it: longer than the mail server may take.
const lease = time.Minute

// pause is how long an e-mail waits after an attempt.
func pause(attempts int64) time.Duration {
	return min(time.Second<<min(attempts, 10), 10*time.Minute)
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
	due := byStatus.Eq(Pending).And(byDue.Before(time.Now()))
	for n, err := range s.notifications.Each(ctx, repository.Query[Notification]{Where: due,
		Sort: []repository.Sort[Notification]{byDue.Asc()}}) {
		if err != nil {
			if ctx.Err() == nil {
				s.log.ErrorContext(ctx, "pending notifications cannot be read", "error", err)
			}
			return
		}
		if !s.one(observability.WithCorrelationID(ctx, n.CorrelationID), n.ID) {
			return
		}
	}
}

// one sends one e-mail, unless another process does. It reports whether there is a mail server, so that an outage is
// not asked about for each e-mail that waits.
func (s *sender) one(ctx context.Context, id string) (goOn bool) {
	n, err := s.notifications.Update(ctx, id, func(_ context.Context, n *Notification) error {
		return n.claim(time.Now(), lease)
	})
	if errors.Is(err, errTaken) {
		return true
	}
	if err != nil {
		s.log.WarnContext(ctx, "a notification cannot be claimed", "notification", id, "error", err)
		return false
	}
	bounded, cancel := context.WithTimeout(ctx, lease/2)
	refused, failed := observability.TrackDependency(bounded, "smtp", "send", func(ctx context.Context) (error, error) {
		err := s.mailer.Send(ctx, n.Recipient, n.Subject, n.Text)
		if errors.Is(err, ErrRefused) {
			return err, nil // the server works
		}
		return nil, err
	})
	failed = cmp.Or(refused, failed)
	cancel()
	if failed != nil && ctx.Err() != nil {
		return false // the service ends; the next one goes on when the lease is over
	}
	_, err = s.notifications.Update(context.WithoutCancel(ctx), id, func(_ context.Context, n *Notification) error {
		switch {
		case failed == nil:
			n.Status = Sent
		case errors.Is(failed, ErrRefused):
			n.Status = Refused
		default:
			n.DueAt = time.Now().Add(pause(n.Attempts))
		}
		return nil
	})
	log := s.log.With("notification", id, "attempt", n.Attempts)
	switch {
	case err != nil:
		log.WarnContext(ctx, "the outcome of a notification could not be stored", "sent", failed == nil, "error", err)
	case errors.Is(failed, ErrRefused):
		log.WarnContext(ctx, "a notification was rejected permanently", "error", failed)
	case failed != nil:
		log.WarnContext(ctx, "a notification was not sent, it will be retried", "error", failed)
	default:
		log.InfoContext(ctx, "notification sent", "event", n.Event, "order_id", n.OrderID)
	}
	return failed == nil || errors.Is(failed, ErrRefused) || errors.Is(failed, ErrLater)
}
