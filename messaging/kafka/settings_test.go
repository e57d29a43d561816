package kafka_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/kafka"
)

func receive(t *testing.T, s messaging.Stream) messaging.Delivery {
	t.Helper()
	d, err := s.Receive(within(t, patience))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// A URL that does not parse is refused, and neither it nor its password is quoted.
func TestURLs(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "host:9092", "amqp://host", "kafka://", "kafka://secret@",
		"kafka://user:secret@host:port",
		"kafka://host/topic", "kafka://us%zzer:secret@host", "kafka://user:secret@a,other@b"} {
		_, err := kafka.New(bad, kafka.Config{})
		if !errors.Is(err, kafka.ErrURL) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: got %v", bad, err)
		}
	}
	for _, good := range []string{"kafka://host", "kafka://host:9092,other:9093", "kafkas://user:p%40ss@host/",
		"kafka://[::1]:9092"} {
		b, err := kafka.New(good, kafka.Config{})
		if err != nil {
			t.Errorf("%q: %v", good, err)
			continue
		}
		_ = b.Close()
	}
	for name, cfg := range map[string]kafka.Config{"prefix": {Prefix: "a.b"}, "mechanism": {User: "u", Mechanism: "MD5"}} {
		if _, err := kafka.New("kafka://host", cfg); err == nil {
			t.Errorf("an unusable %s is taken", name)
		}
	}
}

// works checks that a message gets through.
func works(t *testing.T, b *kafka.Broker) {
	t.Helper()
	s := subscribe(t, b, "g", 1, "t")
	if err := b.Publish(within(t, patience), "t", 1); err != nil {
		t.Fatal(err)
	}
	if err := receive(t, s).Ack(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.Health(t.Context()); err != nil {
		t.Errorf("Health: %v", err)
	}
}

// TLS and each SASL mechanism work; a server of an unknown authority is refused.
func TestTLSAndCredentials(t *testing.T) {
	t.Parallel()
	web := httptest.NewTLSServer(nil) // for its certificate
	defer web.Close()
	roots := x509.NewCertPool()
	roots.AddCert(web.Certificate())
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(),
		kfake.TLS(&tls.Config{Certificates: web.TLS.Certificates}),
		kfake.Superuser(kafka.Plain, "plain", "pass"), kfake.Superuser(kafka.ScramSHA256, "s256", "pass"),
		kfake.Superuser(kafka.ScramSHA512, "s512", "pass"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	hosts := strings.Join(c.ListenAddrs(), ",")
	for mechanism, user := range map[string]string{kafka.Plain: "plain", kafka.ScramSHA256: "s256", "": "s512"} {
		works(t, open(t, "kafkas://"+user+":pass@"+hosts, kafka.Config{Mechanism: mechanism,
			TLS: &tls.Config{RootCAs: roots}}))
		works(t, open(t, "kafka://"+hosts, kafka.Config{Mechanism: mechanism, User: user, Password: "pass",
			TLS: &tls.Config{RootCAs: roots}}))
	}
	untrusted := open(t, "kafkas://s512:pass@"+hosts, kafka.Config{TLS: &tls.Config{}})
	anonymous := open(t, "kafkas://"+hosts, kafka.Config{TLS: &tls.Config{RootCAs: roots}})
	for b, reason := range map[*kafka.Broker]string{untrusted: "certificate", anonymous: "password"} {
		// under load the first attempt may take longer than a call waits
		for end := time.Now().Add(patience); time.Now().Before(end); {
			if err := b.Health(t.Context()); err != nil && strings.Contains(err.Error(), reason) {
				break
			}
		}
		for what, err := range refusals(t, b) {
			if !errors.Is(err, messaging.ErrBlocked) || !strings.Contains(err.Error(), reason) {
				t.Errorf("%s that fails for the %s: got %v", what, reason, err)
			}
		}
	}
}

// A wrong password is an ErrPermission that does not name it.
func TestWrongPassword(t *testing.T) {
	t.Parallel()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.Superuser(kafka.Plain, "plain", "pass"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	c.ControlKey(int16(kmsg.SASLAuthenticate), func(req kmsg.Request) (kmsg.Response, error, bool) { // kfake hangs up
		c.KeepControl()
		resp := req.ResponseKind().(*kmsg.SASLAuthenticateResponse)
		resp.ErrorCode = kerr.SaslAuthenticationFailed.Code
		return resp, nil, true
	})
	b := open(t, "kafka://plain:hunter2@"+strings.Join(c.ListenAddrs(), ","), kafka.Config{Mechanism: kafka.Plain})
	for what, err := range refusals(t, b) {
		if !errors.Is(err, kafka.ErrPermission) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s with a wrong password: got %v, want ErrPermission", what, err)
		}
	}
}

// refusals returns what a broker that cannot connect says.
func refusals(t *testing.T, b *kafka.Broker) map[string]error {
	t.Helper()
	_, err := b.Subscribe(within(t, 2*time.Second), messaging.Subscription{Group: "g", Patterns: []string{"t"}})
	return map[string]error{"Publish": b.Publish(within(t, 2*time.Second), "t", 1), "Subscribe": err,
		"Health": b.Health(within(t, 2*time.Second))}
}

// A user without permissions gets an ErrPermission at once.
func TestMissingPermissionsAreTyped(t *testing.T) {
	t.Parallel()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.EnableACLs(),
		kfake.Superuser(kafka.Plain, "admin", "pass"), kfake.User(kafka.Plain, "guest", "pass"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	hosts := strings.Join(c.ListenAddrs(), ",")
	cfg := kafka.Config{Prefix: "test", Mechanism: kafka.Plain}
	works(t, open(t, "kafka://admin:pass@"+hosts, cfg))
	b := open(t, "kafka://guest:pass@"+hosts, cfg)
	begin := time.Now()
	if err := b.Publish(t.Context(), "t", 1); !errors.Is(err, kafka.ErrPermission) {
		t.Errorf("Publish: got %v, want ErrPermission", err)
	}
	if _, err := b.Subscribe(t.Context(), messaging.Subscription{Group: "g", Patterns: []string{"t"}}); !errors.Is(err,
		kafka.ErrPermission) {
		t.Errorf("Subscribe: got %v, want ErrPermission", err)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("the errors came after %v", took)
	}
}

// A cluster that is down at first is no error of New: Publish and Subscribe wait for it as long as their contexts let
// them.
func TestDownAtStart(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := ln.Addr().(*net.TCPAddr).Port
	_ = ln.Close()
	b := open(t, "kafka://"+ln.Addr().String(), kafka.Config{Reconnect: messaging.Constant(20 * time.Millisecond)})
	if err := b.Publish(within(t, 100*time.Millisecond), "t", 1); !errors.Is(err, messaging.ErrBlocked) ||
		!errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Publish: got %v", err)
	}
	if err := b.Health(within(t, 100*time.Millisecond)); !errors.Is(err, messaging.ErrBlocked) {
		t.Errorf("Health: got %v", err)
	}
	published := make(chan error, 1)
	go func() { published <- b.Publish(within(t, patience), "t", 1) }()
	c, err := kfake.NewCluster(kfake.Ports(port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	if err := <-published; err != nil {
		t.Errorf("Publish that waits: %v", err)
	}
	works(t, b)
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

// dial connects as a program without this library would.
func dial(t *testing.T) *kadm.Client {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(strings.TrimPrefix(url, "kafka://"), ",")...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return kadm.NewClient(cl)
}

// An event is found where Java's clients look for its key: in the partition of murmur2.
func TestPartitionIsJavas(t *testing.T) {
	t.Parallel()
	prefix := unique()
	b := open(t, url, kafka.Config{Prefix: prefix, Partitions: 7})
	// Of org.apache.kafka.common.utils.Utils.murmur2's own test: key and hash.
	hashes := map[string]int32{"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536,
		"a-little-bit-longer-string": -1486304829, "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971}
	for key := range hashes {
		if err := b.Publish(t.Context(), "t", 1, messaging.WithKey(key)); err != nil {
			t.Fatal(err)
		}
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(strings.TrimPrefix(url, "kafka://"), ",")...),
		kgo.ConsumeTopics(prefix+".t"))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for n := 0; n < len(hashes); {
		fetches := cl.PollFetches(within(t, patience))
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			n++
			if want := (hashes[string(r.Key)] & 0x7fffffff) % 7; r.Partition != want {
				t.Errorf("key %s: got partition %d, want %d", r.Key, r.Partition, want)
			}
		})
	}
}

// Records of other programs come with their topic as type, their place as id and their key.
func TestForeignRecords(t *testing.T) {
	t.Parallel()
	prefix := unique()
	b := open(t, url, kafka.Config{Prefix: prefix})
	s := subscribe(t, b, "g", 1, "t")
	cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(strings.TrimPrefix(url, "kafka://"), ",")...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	sent, err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: prefix + ".t", Key: []byte("k"), Value: []byte("v"),
		Headers: []kgo.RecordHeader{{Key: "X-Tenant", Value: []byte("blue")}}}).First()
	if err != nil {
		t.Fatal(err)
	}
	e := receive(t, s).Envelope()
	if e.Type != "t" || e.Key != "k" || string(e.Body) != "v" || e.Header("x-tenant") != "blue" ||
		!strings.HasSuffix(e.ID, "/0") || sent.Offset != 0 {
		t.Errorf("got %+v", e)
	}
}

// What is refused for good is an ErrInvalid, and a body above the broker's limit is one.
func TestPublishThatIsRefused(t *testing.T) {
	t.Parallel()
	b := open(t, url, kafka.Config{})
	for _, topic := range []string{".a", "ü.a", "a/b", strings.Repeat("w", 250)} {
		if err := b.Publish(t.Context(), topic, 1); !errors.Is(err, messaging.ErrInvalid) {
			t.Errorf("topic %.10q: got %v, want ErrInvalid", topic, err)
		}
	}
	if err := b.Publish(t.Context(), "t", make([]byte, 2<<20)); !errors.Is(err, messaging.ErrInvalid) {
		t.Errorf("2 MiB: got %v, want ErrInvalid", err)
	}
}

// Groups whose names are not words of Kafka's have topics of their own.
func TestNamesOfGroups(t *testing.T) {
	t.Parallel()
	b := open(t, url, kafka.Config{})
	groups := []string{"a b", "a/b", "a:b", "ü", strings.Repeat("long", 50), strings.Repeat("long", 49) + "loNg"}
	for _, g := range groups {
		s := subscribe(t, b, g, 1, "t")
		if err := b.Publish(t.Context(), "t", 1, messaging.WithID(g)); err != nil {
			t.Fatal(err)
		}
		if err := receive(t, s).DeadLetter(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, g := range groups {
		dead, err := b.DeadLetters(t.Context(), g, 10)
		if err != nil || len(dead) != 1 || dead[0].ID != g || dead[0].Origin != g {
			t.Errorf("group %.5q: got %v, %v", g, dead, err)
		}
	}
}

// What a broker does not do is an ErrUnsupported.
func TestUnsupportedFeaturesAreTyped(t *testing.T) {
	t.Parallel()
	b := open(t, url, kafka.Config{})
	for _, sub := range []messaging.Subscription{{Group: "g", Ephemeral: true}, {Group: "g", SingleActive: true}} {
		if _, err := b.Subscribe(t.Context(), sub); !errors.Is(err, messaging.ErrUnsupported) {
			t.Errorf("%+v: got %v, want ErrUnsupported", sub, err)
		}
	}
}
