package main

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/rabbitmq"
)

// A message that cannot be decoded becomes a dead letter. Operators can list and redrive it; then it is a dead letter
// again, unchanged and once.
func TestDeadLettersByCommand(t *testing.T) {
	url := testenv.RabbitMQ(t)
	o := &options{host: "127.0.0.1", portOffset: -1, data: t.TempDir(), broker: url, log: "none", logLevel: "error",
		breaker: time.Second, seed: true}
	h, err := newAllInOne(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	closed := make(chan error, 1)
	go func() { closed <- h.Run(ctx) }()
	defer func() {
		stop()
		if err := <-closed; err != nil {
			t.Error(err)
		}
	}()
	signIn(t, h.URL(), "ana") // it is open
	run := func(args ...string) string {
		t.Helper()
		var out bytes.Buffer
		cmd := root()
		cmd.SetArgs(append(append([]string{"messages"}, args...), "--gateway", h.URL()))
		cmd.SetOut(&out)
		cmd.SetErr(&out)
		if err := cmd.ExecuteContext(t.Context()); err != nil {
			t.Fatalf("messages %v: %v", args, err)
		}
		return out.String()
	}
	broker := rabbitmq.Must(rabbitmq.New(url, rabbitmq.Config{Source: "test"}))
	defer broker.Close()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		err := broker.Publish(t.Context(), "orders.paid", []byte("{not json"), messaging.WithID("broken-1"))
		if err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	letter := regexp.MustCompile(`(?m)^\S+  broken-1  orders\.paid +attempts 1  .*does not decode.*$`)
	once := func(what string) {
		t.Helper()
		var out string
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			if out = run("dead", "--group", "notifications"); letter.MatchString(out) {
				break
			}
		}
		if n := len(letter.FindAllString(out, -1)); n != 1 {
			t.Fatalf("%s: %d letters in %q", what, n, out)
		}
	}
	once("at first")
	if got := run("redrive", "--group", "notifications", "--limit",
		"10"); got != "1 messages were moved back to notifications\n" {
		t.Errorf("redrive: %q", got)
	}
	once("after redrive")
	heldByCommand(t, url, h.URL(), run)
	if got := run("dead", "--group", "unknown"); got != "" {
		t.Errorf("a group that is none: %q", got)
	}
}

// heldByCommand has an event of the users service refused by a full queue: operators list it, try it again, let its key
// go on, and drop it.
func heldByCommand(t *testing.T, broker, gateway string, run func(args ...string) string) {
	t.Helper()
	conn, err := amqp.Dial(broker)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ch.QueueDeclare("full", true, false, false, false,
		amqp.Table{"x-max-length": 1, "x-overflow": "reject-publish"}); err != nil {
		t.Fatal(err)
	}
	if err := ch.QueueBind("full", "users.created", "microservices", false, nil); err != nil {
		t.Fatal(err)
	}
	if err := ch.PublishWithContext(t.Context(), "", "full", false, false, amqp.Publishing{}); err != nil {
		t.Fatal(err)
	}
	code, user := ask(t, t.Context(), "", "POST", gateway+"/users/api/v1/users",
		`{"username":"held","email":"held@example.com","password":"held-password"}`)
	if code != 201 {
		t.Fatalf("sign up: %d", code)
	}
	// The users that the shop begins with may have held events too.
	event := regexp.MustCompile(fmt.Sprintf(`(?m)^(\S+)  \S+  users\.created +attempts \d+  next \S+  stops key %v$`,
		user["id"]))
	var ref string
	for end := time.Now().Add(20 * time.Second); ref == ""; time.Sleep(50 * time.Millisecond) {
		out := run("held", "--service", "users")
		if m := event.FindStringSubmatch(out); m != nil {
			ref = m[1]
		} else if time.Now().After(end) {
			t.Fatalf("held: %q", out)
		}
	}
	for verb, want := range map[string]string{"publish": " events of users are tried at once\n",
		"skip": " events of users no longer stop their keys\n"} {
		if got := run(verb, ref, "--service", "users"); !strings.HasSuffix(got, want) {
			t.Errorf("%s: %q", verb, got)
		}
	}
	for end := time.Now().Add(20 * time.Second); run("drop", ref, "--service",
		"users") != "1 events of users were dropped\n"; {
		if time.Now().After(end) { // it is published again and again, and cannot be dropped meanwhile
			t.Fatal("the held event cannot be dropped")
		}
	}
	if out := run("held", "--service", "users"); event.MatchString(out) {
		t.Errorf("after the drop: %q", out)
	}
}
