package simulation_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sillar-go/sillar/messaging"
)

// The event of a new user comes ten minutes after the event of the user's order, as when the users service is down: the
// letter about the order is late, and not lost.
func TestLetterWaitsForItsUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(settings{Seed: 1})
		ctx, stop := context.WithCancel(t.Context())
		w.wg.Go(func() { w.supervise(ctx, "notifications") })
		time.Sleep(time.Minute) // the service is up
		publish := func(topic string, payload any) {
			t.Helper()
			if err := w.broker.Publish(ctx, topic, payload, messaging.WithID(topic)); err != nil {
				t.Fatal(err)
			}
		}
		publish("orders.created", map[string]any{"order_id": "o1", "user_id": "u1", "total_cents": 100})
		time.Sleep(10 * time.Minute)
		publish("users.created", map[string]any{"user_id": "u1", "username": "ana", "email": "ana@example.com",
			"version": 1})
		time.Sleep(2 * time.Minute)
		if n := w.count("notifications", "SELECT count(*) FROM notifications WHERE order_id = 'o1'"); n != "1" {
			dead, err := w.broker.DeadLetters(ctx, "notifications", 1)
			t.Errorf("%s letters about the order, want 1; dead letters: %v, %v", n, dead, err)
		}
		stop()
		w.wg.Wait()
		w.close(t)
	})
}
