package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/sillar-go/sillar/examples/shop/internal/scenario"
	"github.com/sillar-go/sillar/internal/testenv"
)

// The test binary is the shop, too: it runs as one when asked to.
func TestMain(m *testing.M) {
	if os.Getenv("SHOP_TEST_MAIN") == "1" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestDemoEmbedded(t *testing.T) {
	var out bytes.Buffer
	cmd := root()
	cmd.SetArgs([]string{"demo", "--data", t.TempDir()})
	cmd.SetOut(&out)
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, want := range []string{"paid", "card was declined", "compensated", "✉", "breaker is open", "recovered",
		"money captured"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the demonstration does not speak of %q:\n%s", want, out.String())
		}
	}
}

// brokerURL returns the broker of the tests with many processes: RabbitMQ or, where SHOP_TEST_BROKER is nats or kafka,
// JetStream or Kafka.
func brokerURL(t *testing.T) string {
	t.Helper()
	switch os.Getenv("SHOP_TEST_BROKER") {
	case "nats":
		return natsURL(t)
	case "kafka":
		return kafkaURL(t)
	}
	return testenv.RabbitMQ(t)
}

// kafkaURL starts a broker in this process that speaks Kafka's protocol.
func kafkaURL(t *testing.T) string {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.ListenFn(func(network, addr string) (net.Listener, error) {
		ln, err := net.Listen(network, addr)
		return lingering{ln}, err
	}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return "kafka://" + c.ListenAddrs()[0]
}

// natsURL starts a NATS server in this process.
func natsURL(t *testing.T) string {
	t.Helper()
	srv, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true,
		StoreDir: t.TempDir(), NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	go srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(30 * time.Second) {
		t.Fatal("the server is not ready")
	}
	return srv.ClientURL()
}

// The demonstration over NATS JetStream and over Kafka, whose servers run in this process.
func TestDemoOverOtherBrokers(t *testing.T) {
	for name, url := range map[string]func(*testing.T) string{"JetStream": natsURL, "Kafka": kafkaURL} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			cmd := root()
			cmd.SetArgs([]string{"demo", "--data", t.TempDir(), "--broker", url(t)})
			cmd.SetOut(&out)
			if err := cmd.ExecuteContext(t.Context()); err != nil {
				t.Fatalf("%v\n%s", err, out.String())
			}
			if !strings.Contains(out.String(), "All invariants hold") {
				t.Errorf("the demonstration ends with\n%s", out.String())
			}
		})
	}
}

// ready waits until a service says that it is.
func ready(t *testing.T, p *process, url string) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); ; {
		res, err := http.Get(url + "/ready")
		if err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case err := <-p.done:
			p.done <- err
			t.Fatalf("%s ended: %v", p.name, err)
		case <-time.After(100 * time.Millisecond):
		}
		if time.Now().After(end) {
			t.Fatalf("%s is not ready at %s: %v", p.name, url, err)
		}
	}
}

// The demonstration over real parts: seven processes, a broker, PostgreSQL, MongoDB. Each order that was paid is one
// trace through all of them.
func TestDemoProcesses(t *testing.T) {
	broker, mongo := brokerURL(t), testenv.Mongo(t)
	c := collect(t)
	f := startFleet(t, broker, mongo)
	runDemo(t, f)
	paid := c.traces("notifications: consumer process orders.paid")
	if len(paid) == 0 {
		t.Fatal("no trace of an order that was paid")
	}
	c.check(t, paid[0], append(slices.Clone(orderEdges), "users: client find users < users: internal get_user",
		"orders: client WITH < orders: internal saga place-order",
		"payments: client TRANSACTION < payments: server POST /api/v1/payments",
		"notifications: client TRANSACTION < notifications: consumer process orders.paid")...)
}

// runDemo runs the demonstration against the processes and stops them.
func runDemo(t *testing.T, f *fleet) {
	t.Helper()
	at, all := f.at, f.all()
	var out bytes.Buffer
	err := scenario.Run(t.Context(), scenario.Config{Gateway: at("gateway"), Admin: "admin",
		AdminPassword: "admin-password", Out: &out, Faults: true,
		Logs: func() ([]byte, error) {
			var logs []byte
			for _, p := range all {
				log, err := os.ReadFile(p.log)
				if err != nil {
					return nil, err
				}
				logs = append(logs, log...)
			}
			return logs, nil
		}})
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for i := len(all) - 1; i >= 0; i-- {
		if err := all[i].stop(syscall.SIGTERM); err != nil {
			t.Errorf("%s, after SIGTERM: %v", all[i].name, err)
		}
	}
}

// A shop is killed in the middle of an order, and goes on with it when it is back.
func TestKilledInTheMiddleOfAnOrder(t *testing.T) {
	dir, offset := t.TempDir(), freeOffset(t)
	args := []string{"--port-offset", strconv.Itoa(offset), "--data", filepath.Join(dir, "data")}
	url := "http://127.0.0.1:" + strconv.Itoa(ports["gateway"]+offset)
	p := start(t, dir, args...)
	ready(t, p, url)
	orders := "http://127.0.0.1:" + strconv.Itoa(ports["orders"]+offset)
	ready(t, p, orders)

	token := signIn(t, url, "ana")
	ctx, giveUp := context.WithTimeout(t.Context(), 1200*time.Millisecond) // in the middle of a slow payment
	defer giveUp()
	for stocked := false; !stocked; {
		_, body := ask(t, t.Context(), token, "GET", url+"/inventory/api/v1/inventory/prod-lamp", "")
		stocked = body["on_hand"] != nil
	}
	_, _ = ask(t, ctx, token, "POST", url+"/orders/api/v1/orders",
		`{"items":[{"product_id":"prod-lamp","quantity":1}],"payment_method":"pm_card_slow"}`)
	if err := p.stop(syscall.SIGKILL); err == nil {
		t.Fatal("the shop was not killed")
	}

	p = start(t, dir, args...)
	ready(t, p, url)
	ready(t, p, orders)
	token = signIn(t, url, "ana")
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		_, body := ask(t, t.Context(), token, "GET", url+"/orders/api/v1/orders", "")
		items, _ := body["items"].([]any)
		if len(items) == 1 && items[0].(map[string]any)["status"] == "paid" {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the order did not continue: %v", body)
		}
	}
	if err := p.stop(syscall.SIGTERM); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
}

func signIn(t *testing.T, gateway, name string) string {
	t.Helper()
	res, err := http.Post(gateway+"/users/token", "application/x-www-form-urlencoded",
		strings.NewReader("grant_type=password&username="+name+"&password="+name+"-password"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var token struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.NewDecoder(res.Body).Decode(&token); err != nil || token.AccessToken == "" {
		t.Fatalf("sign in: %d %v", res.StatusCode, err)
	}
	return token.AccessToken
}

// ask is send for tests in which every service answers; a request that gets no answer has the code 0.
func ask(t *testing.T, ctx context.Context, token, method, url, body string) (int, map[string]any) {
	t.Helper()
	code, out, _ := send(ctx, token, method, url, body)
	return code, out
}

func send(ctx context.Context, token, method, url, body string, header ...string) (int, map[string]any, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, nil, err
	}
	out := map[string]any{}
	_ = json.Unmarshal(raw, &out) // what is no JSON is empty here
	return res.StatusCode, out, nil
}
