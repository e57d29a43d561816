package kafka_test

import (
	"encoding/binary"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/sillar-go/sillar/internal/faultproxy"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/kafka"
)

// loseFirstAnswer ends the connection by which the first request of a kind is sent, in place of the answer. It also
// ends those by which the cluster has answered to questions for metadata: so the request is the first one on its
// connection.
func loseFirstAnswer(p *faultproxy.Proxy, kind kmsg.Key) (lost *atomic.Bool) {
	lost = new(atomic.Bool)
	var asked *atomic.Int64 // what was asked last by the connection for which filters are made
	p.Filter(func(fromTarget bool) faultproxy.Filter {
		if !fromTarget {
			asked = new(atomic.Int64)
		}
		asked := asked
		return func(piece []byte) (pass int, cut bool) {
			const head = 6 // length and kind of a request
			switch now := kmsg.Key(asked.Load()); {
			case !fromTarget && len(piece) >= head:
				asked.Store(int64(binary.BigEndian.Uint16(piece[4:])))
			case !fromTarget || lost.Load():
			case now == kind:
				lost.Store(true)
				return 0, true
			case now == kmsg.Metadata:
				return len(piece), true
			}
			return len(piece), false
		}
	})
	return lost
}

// A connection ends before the first answer on it: what was published is stored, once.
func TestFirstAnswerIsLost(t *testing.T) {
	t.Parallel()
	for _, kind := range []kmsg.Key{kmsg.ApiVersions, kmsg.Metadata, kmsg.InitProducerID, kmsg.Produce} {
		t.Run(kind.Name(), func(t *testing.T) {
			t.Parallel()
			url, p := proxied(t)
			prefix := unique()
			s := subscribe(t, open(t, url, kafka.Config{Prefix: prefix}), "g", 10, "t") // which makes the topic
			b := open(t, url, kafka.Config{Prefix: prefix})
			lost := loseFirstAnswer(p, kind)
			for _, id := range []string{"first", "second"} {
				if err := b.Publish(within(t, patience), "t", 1, messaging.WithID(id), messaging.WithKey("k")); err != nil {
					t.Fatalf("Publish %s: got %v, want nil", id, err)
				}
			}
			if !lost.Load() {
				t.Fatal("no answer was lost")
			}
			var got []string
			for !slices.Contains(got, "second") {
				got = append(got, receive(t, s).Envelope().ID)
			}
			if want := []string{"first", "second"}; !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}
