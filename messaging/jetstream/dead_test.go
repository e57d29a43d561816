package jetstream_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/sillar-go/sillar/messaging"
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

// A letter that cannot be moved, as its copy has no room for the headers of the move, holds up no other.
func TestRedriveMovesTheOthersOfABatch(t *testing.T) {
	t.Parallel()
	const letters, stuck = 250, 20 // in three batches
	name := unique()
	b := open(t, shared.ClientURL(), jetstream.Config{Stream: name})
	s := subscribe(t, b, "g", letters, "t")
	nc := dial(t, shared.ClientURL())
	js, err := natsjs.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	for i := range letters {
		m := &nats.Msg{Subject: name + "_dead.g", Header: nats.Header{"ce-id": {fmt.Sprint(i)}, "x-sillar-topic": {"t"}}}
		if i == stuck {
			m = &nats.Msg{Subject: m.Subject, Data: make([]byte, nc.MaxPayload())}
		}
		if _, err := js.PublishMsg(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := b.Redrive(t.Context(), "g", letters); n != letters-1 || !errors.Is(err, messaging.ErrInvalid) {
		t.Errorf("redrive: got %d, %v; want %d, ErrInvalid", n, err, letters-1)
	}
	dead, err := b.DeadLetters(t.Context(), "g", letters)
	if err != nil || len(dead) != 1 || len(dead[0].Body) == 0 {
		t.Errorf("dead letters: got %d, %v; want the one that is too large", len(dead), err)
	}
	for range letters - 1 {
		if err := receive(t, s).Ack(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}
