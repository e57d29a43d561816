package notifications_test

import (
	"bufio"
	"fmt"
	"maps"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sillar-go/sillar/examples/shop/internal/platform"
	"github.com/sillar-go/sillar/examples/shop/internal/shoptest"
	"github.com/sillar-go/sillar/examples/shop/notifications"
	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/observability"
)

// mailServer takes e-mail by SMTP (RFC 5321), as much of it as is needed. The first mails are refused, and so is always
// mail to nobody@ (permanently) or busy@ (temporarily).
type mailServer struct {
	addr string

	mu     sync.Mutex
	refuse int
	mails  []string
}

func newMailServer(t *testing.T, refuse int) *mailServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &mailServer{addr: l.Addr().String(), refuse: refuse}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { s.serve(c) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return s
}

func (s *mailServer) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	say := func(line string) { fmt.Fprint(c, line+"\r\n") }
	say("220 test")
	var to string
	for in := bufio.NewScanner(c); in.Scan(); {
		verb, _, _ := strings.Cut(strings.ToUpper(in.Text()), " ")
		switch verb {
		case "EHLO", "HELO":
			say("250 test")
		case "RCPT":
			to = in.Text()
			switch {
			case strings.Contains(to, "nobody@"):
				say("550 5.1.1 no such user")
			case strings.Contains(to, "busy@"):
				say("450 4.2.1 mailbox busy")
			default:
				say("250 ok")
			}
		case "DATA":
			say("354 go on")
			var text strings.Builder
			for in.Scan() && in.Text() != "." {
				text.WriteString(in.Text() + "\n")
			}
			s.mu.Lock()
			refused := s.refuse > 0
			if refused {
				s.refuse--
			} else {
				s.mails = append(s.mails, to+"\n"+text.String())
			}
			s.mu.Unlock()
			if refused {
				say("451 not now")
			} else {
				say("250 taken")
			}
		case "QUIT":
			say("221 bye")
			return
		default:
			say("250 ok")
		}
	}
}

func (s *mailServer) taken() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.mails...)
}

// tell publishes an event as soon as the service has subscribed.
func tell(t *testing.T, shop *shoptest.Shop, topic, id string, payload map[string]any) {
	t.Helper()
	ctx := observability.WithCorrelationID(t.Context(), "c-7")
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		err := shop.Broker.Publish(ctx, topic, payload, messaging.WithID(id))
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

func user(id, email string, version int) map[string]any {
	return map[string]any{"user_id": id, "username": "user-" + id, "email": email, "version": version}
}

// list returns what an administrator sees, by recipient and event, and how often.
func list(t *testing.T, s *platform.Service, admin string) (status map[string]string, n int) {
	t.Helper()
	a := shoptest.Call{Method: "GET", URL: s.URL() + "/api/v1/notifications?limit=200", Token: admin}.Do(t)
	a.Want(t, "list", 200)
	items, _ := a.Body["items"].([]any)
	status = map[string]string{}
	for _, it := range items {
		n := it.(map[string]any)
		status[fmt.Sprint(n["recipient"], " ", n["event"])] = n["status"].(string)
	}
	return status, len(items)
}

// Two processes send each e-mail once; one that is refused, now or for good, keeps no other waiting.
func TestTwoSendersSendEachEmailOnce(t *testing.T) {
	for name, dsn := range map[string]func(testing.TB) string{"sqlite": shoptest.SQLite, "postgresql": testenv.Postgres} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			shop, mail, at := shoptest.New(t), newMailServer(t, 0), dsn(t)
			var services []*platform.Service
			for range 2 {
				cfg := shop.Config("notifications", at)
				cfg.SMTP = "smtp://" + mail.addr + "?tls=off"
				s, err := notifications.New(t.Context(), cfg)
				services = append(services, shoptest.Run(t, s, err))
			}
			admin := shop.User(t, "u0", "admin")
			want := map[string]string{}
			for i, to := range []string{"nobody@example.com", "busy@example.com"} {
				tell(t, shop, "users.created", to, user(fmt.Sprint("first", i), to, 1))
			}
			for i := range 30 {
				to := fmt.Sprintf("u%d@example.com", i)
				tell(t, shop, "users.created", to, user(fmt.Sprint("u", i), to, 1))
				want[to+" users.created"] = "sent"
			}
			want["nobody@example.com users.created"], want["busy@example.com users.created"] = "refused", "pending"
			var got map[string]string
			for end := time.Now().Add(20 * time.Second); !maps.Equal(got, want); time.Sleep(50 * time.Millisecond) {
				if got, _ = list(t, services[0], admin); time.Now().After(end) {
					t.Fatalf("got  %v\nwant %v", got, want)
				}
			}
			if n := len(mail.taken()); n != 30 {
				t.Errorf("%d e-mails came, want 30", n)
			}
		})
	}
}

// An event without a user becomes a dead letter at once, and no contact and no letter.
func TestEventOfNobody(t *testing.T) {
	shop := shoptest.New(t)
	s, err := notifications.New(t.Context(), shop.Config("notifications", shoptest.SQLite(t)))
	shoptest.Run(t, s, err)
	for i, payload := range []map[string]any{{}, user("", "a@example.com", 1), user("a", "", 1)} {
		tell(t, shop, "users.created", fmt.Sprint("m", i), payload)
	}
	var dead []messaging.DeadLetter
	for end := time.Now().Add(30 * time.Second); len(dead) < 3; time.Sleep(5 * time.Millisecond) {
		if dead, err = shop.Broker.DeadLetters(t.Context(), "notifications", 10); err != nil || time.Now().After(end) {
			t.Fatalf("%d dead letters, want 3: %v", len(dead), err)
		}
	}
	for _, d := range dead {
		if d.Attempts != 1 || !strings.Contains(d.Reason, "without id or address") {
			t.Errorf("after %d attempts: %s", d.Attempts, d.Reason)
		}
	}
	if got, n := list(t, s, shop.User(t, "u0", "admin")); n != 0 {
		t.Errorf("letters: %v", got)
	}
}

// Events of a user arrive in any order: the latest address stays, and a deleted user stays deleted.
func TestUsersInAnyOrder(t *testing.T) {
	shop := shoptest.New(t)
	s, err := notifications.New(t.Context(), shop.Config("notifications", shoptest.SQLite(t)))
	shoptest.Run(t, s, err)
	admin := shop.User(t, "u0", "admin")
	handled := 0
	tell := func(topic string, payload map[string]any) {
		t.Helper()
		handled++
		tell(t, shop, topic, fmt.Sprint("m", handled), payload)
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			if _, n := list(t, s, admin); n == handled {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%s was not handled", topic)
			}
		}
	}
	order := map[string]any{"order_id": "o1", "user_id": "a", "total_cents": 100}
	tell("users.updated", user("a", "new@example.com", 3))
	tell("users.updated", user("a", "old@example.com", 2))
	tell("users.created", user("a", "oldest@example.com", 1))
	tell("orders.created", order)
	if got, _ := list(t, s, admin); got["new@example.com orders.created"] == "" {
		t.Errorf("the order's letter went elsewhere: %v", got)
	}
	tell("users.deleted", user("a", "new@example.com", 4))
	tell("users.updated", user("a", "new@example.com", 3))
	order["order_id"] = "o2"
	if err := shop.Broker.Publish(t.Context(), "orders.created", order); err != nil {
		t.Fatal(err)
	}
	tell("users.created", user("b", "b@example.com", 1)) // comes after the order
	time.Sleep(100 * time.Millisecond)
	if got, n := list(t, s, admin); n != handled {
		t.Errorf("a letter went to a deleted user: %v", got)
	}
}

func TestNotificationsFollowOrderEvents(t *testing.T) {
	for name, dsn := range map[string]func(testing.TB) string{"sqlite": shoptest.SQLite, "postgresql": testenv.Postgres} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			shop, mail := shoptest.New(t), newMailServer(t, 1)
			cfg := shop.Config("notifications", dsn(t))
			cfg.SMTP = "smtp://" + mail.addr + "?tls=off&from=shop@example.com"
			s, err := notifications.New(t.Context(), cfg)
			shoptest.Run(t, s, err)

			tell := func(topic, id string, payload map[string]any) { tell(t, shop, topic, id, payload) }
			order := map[string]any{"order_id": "o1", "user_id": "u1", "total_cents": 1990, "reason": "your card was declined"}
			tell("orders.created", "m1", order) // comes before its user is known: it is tried again
			tell("users.created", "m0", map[string]any{"user_id": "u1", "username": "ana", "email": "ana@example.com"})
			tell("orders.created", "m1", order) // comes twice
			tell("orders.cancelled", "m2", order)
			tell("orders.unheard-of", "m3", order)

			get := func(token, query string) []any {
				t.Helper()
				a := shoptest.Call{Method: "GET", URL: s.URL() + "/api/v1/notifications" + query, Token: token}.Do(t)
				a.Want(t, "list", 200)
				items, _ := a.Body["items"].([]any)
				return items
			}
			ana, bob, admin := shop.User(t, "u1", "customer"), shop.User(t, "u2", "customer"), shop.User(t, "u3", "admin")
			var items []any
			for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
				if items = get(ana, ""); len(items) == 3 && len(mail.taken()) == 3 && !strings.Contains(fmt.Sprint(items),
					"pending") {
					break
				}
			}
			events := map[string]map[string]any{}
			for _, it := range items {
				n := it.(map[string]any)
				events[n["event"].(string)] = n
				if n["status"] != "sent" || n["recipient"] != "ana@example.com" || n["correlation_id"] != "c-7" {
					t.Errorf("notification %v", n)
				}
			}
			if len(items) != 3 || len(events) != 3 {
				t.Fatalf("%d notifications of %d events, want 3 and 3: %v", len(items), len(events), items)
			}
			if text := events["orders.cancelled"]["text"].(string); !strings.Contains(text, "your card was declined") {
				t.Errorf("the cancellation does not say why: %s", text)
			}
			mails := strings.Join(mail.taken(), "\n")
			for _, want := range []string{"<ana@example.com>", "Subject: Welcome, ana", "19.90", "was cancelled"} {
				if !strings.Contains(mails, want) {
					t.Errorf("the mails lack %q:\n%s", want, mails)
				}
			}
			if n := len(get(bob, "?user_id=u1")); n != 0 {
				t.Errorf("another customer sees %d of them", n)
			}
			if n := len(get(admin, "?user_id=u1&order_id=o1")); n != 2 {
				t.Errorf("an administrator sees %d of the order's, want 2", n)
			}
			shoptest.Call{Method: "GET", URL: s.URL() + "/api/v1/notifications"}.Do(t).Want(t, "without a token", 401)
		})
	}
}

func TestMailServerAddress(t *testing.T) {
	shop := shoptest.New(t)
	for _, bad := range []string{"http://host", "smtp://", "smtp://user:hunter2@:25", "::"} {
		cfg := shop.Config("notifications", shoptest.SQLite(t))
		cfg.SMTP = bad
		s, err := notifications.New(t.Context(), cfg)
		if err == nil {
			t.Errorf("%q was accepted", bad)
			s.Abandon(t.Context())
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error shows the password: %v", err)
		}
	}
}
