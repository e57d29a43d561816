package rabbitmq_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/messaging/driver"
)

// Match agrees with the server itself, on random patterns and topics.
func TestMatchIsTheServers(t *testing.T) {
	ch := raw(t, testenv.RabbitMQ(t))
	if err := ch.ExchangeDeclare("x", amqp.ExchangeTopic, false, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	t.Log("seed ", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	words := func(n int, from ...string) string {
		var w []string
		for range 1 + r.IntN(n) {
			w = append(w, from[r.IntN(len(from))])
		}
		return strings.Join(w, ".")
	}
	patterns := map[string]string{} // by queue
	for i := range 60 {
		q, p := fmt.Sprint("q", i), words(5, "a", "b", "", "*", "#", "#", "*")
		if driver.ValidPattern(p) != nil {
			continue
		}
		patterns[q] = p
		if _, err := ch.QueueDeclare(q, false, false, true, false, nil); err != nil {
			t.Fatal(err)
		}
		if err := ch.QueueBind(q, p, "x", false, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{}
	for i := range 200 {
		topic := words(6, "a", "b", "ab", "")
		d, err := ch.PublishWithDeferredConfirm("x", topic, false, false,
			amqp.Publishing{Body: fmt.Append(nil, i, " ", topic)})
		if err != nil || !d.Wait() {
			t.Fatal(err)
		}
		for q, p := range patterns {
			if driver.Match(p, topic) {
				want[q] = append(want[q], fmt.Sprint(i, " ", topic))
			}
		}
	}
	taken := 0
	for q, p := range patterns {
		var got []string
		for {
			d, ok, err := ch.Get(q, true)
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
			got = append(got, string(d.Body))
		}
		taken += len(got)
		for _, topic := range got {
			if !slices.Contains(want[q], topic) {
				t.Errorf("pattern %q takes %q at the server only", p, topic)
			}
		}
		if len(got) < len(want[q]) {
			t.Errorf("pattern %q takes %d messages at the server, %d here", p, len(got), len(want[q]))
		}
	}
	if taken < 500 {
		t.Errorf("only %d messages were taken: that tells little", taken)
	}
}
