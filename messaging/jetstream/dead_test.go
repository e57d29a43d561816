package jetstream_test

import (
	"errors"
	"testing"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/sillar-go/sillar/messaging/jetstream"
)

// The stream would drop what is moved back to a group without a consumer: the letter stays.
func TestRedriveOfAGroupThatWasDeletedKeepsTheLetter(t *testing.T) {
	t.Parallel()
	name := unique()
	b := open(t, shared.ClientURL(), jetstream.Config{Stream: name})
	s := subscribe(t, b, "g", 1, "t")
	if err := b.Publish(t.Context(), "t", 1); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(receive(t, s).DeadLetter(t.Context(), errors.New("poison")), s.Close()); err != nil {
		t.Fatal(err)
	}
	js, err := natsjs.New(dial(t, shared.ClientURL()))
	if err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteConsumer(t.Context(), name, "g"); err != nil {
		t.Fatal(err)
	}
	if n, err := b.Redrive(t.Context(), "g", 10); n != 0 || !errors.Is(err, jetstream.ErrTopology) {
		t.Errorf("redrive without a consumer: %d, %v", n, err)
	}
	if dead, err := b.DeadLetters(t.Context(), "g", 10); err != nil || len(dead) != 1 {
		t.Fatalf("dead letters: %+v, %v; want one", dead, err)
	}
	s = subscribe(t, b, "g", 1, "t")
	if n, err := b.Redrive(t.Context(), "g", 10); n != 1 || err != nil {
		t.Errorf("redrive: %d, %v", n, err)
	}
	if err := errors.Join(receive(t, s).Ack(t.Context()), s.Close()); err != nil {
		t.Error(err)
	}
}
