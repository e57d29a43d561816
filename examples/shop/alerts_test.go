package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sillar-go/sillar/internal/faultproxy"
	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/messaging/rabbitmq"
	"github.com/sillar-go/sillar/repository/sqldb"
	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/sagasql"
)

// faster is how many times shorter the windows of the rules are here, so that a test sees them pass.
const faster = 120

// durations are those of windows, offsets and "for"; ages are thresholds in seconds.
var (
	durations = regexp.MustCompile(`(\[|offset |for: )(\d+)([mhd])`)
	ages      = regexp.MustCompile(`(_seconds\{[^}]*\}\)) > (\d+)`)
	alertName = regexp.MustCompile(`- alert: (\w+)`)
)

// shortened writes the rules with every duration divided, and returns the names of the alerts.
func shortened(t *testing.T, dir string) (alerts []string) {
	t.Helper()
	files, err := filepath.Glob("deploy/observe/rules/*.yml")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files of rules, %v", len(files), err)
	}
	unit := map[string]time.Duration{"m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range alertName.FindAllSubmatch(text, -1) {
			alerts = append(alerts, string(m[1]))
		}
		text = durations.ReplaceAllFunc(text, func(b []byte) []byte {
			m := durations.FindSubmatch(b)
			n, err := strconv.Atoi(string(m[2]))
			if err != nil {
				t.Fatal(err)
			}
			d := time.Duration(n) * unit[string(m[3])] / faster
			if string(m[1]) == "for: " {
				d = min(d, 2*time.Second)
			} else {
				d = max(d, 2*time.Second)
			}
			return fmt.Appendf(nil, "%s%dms", m[1], d.Milliseconds())
		})
		text = ages.ReplaceAllFunc(text, func(b []byte) []byte {
			m := ages.FindSubmatch(b)
			n, err := strconv.Atoi(string(m[2]))
			if err != nil {
				t.Fatal(err)
			}
			return fmt.Appendf(nil, "%s > %d", m[1], max(n/faster/20, 1))
		})
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(file)), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return alerts
}

// firing returns the names of the alerts that fire.
func firing(prometheus string) (map[string]bool, error) {
	res, err := http.Get(prometheus + "/api/v1/alerts")
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	var answer struct {
		Data struct {
			Alerts []struct {
				State  string
				Labels struct{ Alertname string }
			}
		}
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, a := range answer.Data.Alerts {
		if a.State == "firing" {
			names[a.Labels.Alertname] = true
		}
	}
	return names, nil
}

// A real Prometheus with the rules of the deployment, their windows shortened, watches a shop of processes.
// The cause of each alert is provoked, and the alert fires; none fires before.
func TestEveryAlertFiresByItsCause(t *testing.T) {
	t.Parallel()
	direct, mongo := testenv.RabbitMQ(t), testenv.Mongo(t)
	u, err := url.Parse(direct)
	if err != nil {
		t.Fatal(err)
	}
	proxy := faultproxy.New(t, u.Host)
	u.Host = proxy.Addr()
	f := startFleet(t, u.String(), mongo)
	gateway := f.at("gateway")
	rules := t.TempDir()
	alerts := shortened(t, rules)
	targets := map[string]string{}
	for _, s := range services {
		targets[s.name] = strings.TrimPrefix(f.at(s.name), "http://")
	}
	prometheus := startPrometheus(t, targets, "shop", rules)

	ana, admin := signIn(t, gateway, "ana"), signIn(t, gateway, "admin")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	fired := map[string]time.Duration{}
	began := time.Now()
	until := func(cause string, want ...string) {
		t.Helper()
		for end := time.Now().Add(90 * time.Second); ; time.Sleep(200 * time.Millisecond) {
			now, err := firing(prometheus)
			if err != nil {
				t.Fatal(err)
			}
			for name := range now {
				if _, known := fired[name]; !known {
					fired[name] = time.Since(began)
				}
			}
			var missing []string
			for _, name := range want {
				if _, ok := fired[name]; !ok {
					missing = append(missing, name)
				}
			}
			if len(missing) == 0 {
				return
			}
			if time.Now().After(end) {
				t.Errorf("%s: %v did not fire; %v fire", cause, missing, slices.Sorted(maps.Keys(now)))
				return
			}
		}
	}
	order := func(card string) func() {
		return func() {
			_, _, _ = send(ctx, ana, "POST", gateway+"/orders/api/v1/orders",
				fmt.Sprintf(`{"items":[{"product_id":"prod-mug","quantity":1}],"payment_method":%q}`, card))
		}
	}
	load := func(what func()) (stop func()) {
		lctx, stop := context.WithCancel(ctx)
		for range 3 {
			wg.Go(func() {
				for lctx.Err() == nil {
					what()
					time.Sleep(100 * time.Millisecond)
				}
			})
		}
		return stop
	}

	// Prometheus itself begins: until it has seen all services one of them may seem to be down.
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		up, err := query(prometheus, `count(up{job="shop"} == 1) == 7`)
		now, ferr := firing(prometheus)
		if err == nil && ferr == nil && len(up) == 1 && len(now) == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("a shop without load: up %v, %v; %v fire, %v", up, err, slices.Sorted(maps.Keys(now)), ferr)
		}
	}
	stop := load(order("pm_card_visa"))
	for end := time.Now().Add(4 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		now, err := firing(prometheus)
		// On a busy machine a single order may take more than a second.
		maps.DeleteFunc(now, func(name string, _ bool) bool { return strings.HasPrefix(name, "ShopGatewaySlow") })
		if err != nil || len(now) > 0 {
			t.Fatalf("a shop that works: %v fire, %v", slices.Sorted(maps.Keys(now)), err)
		}
	}
	stop()

	stop = load(order("pm_card_declined"))
	until("every card is declined", "ShopSagasCompensate")
	stop()

	client := rabbitmq.Must(rabbitmq.New(direct, rabbitmq.Config{Source: "test"}))
	defer client.Close()
	publish := func(topic string, body any) func() {
		return func() {
			if err := client.Publish(ctx, topic, body); err != nil && ctx.Err() == nil {
				t.Errorf("publish %s: %v", topic, err)
			}
		}
	}
	publish("orders.created", json.RawMessage(`"no order"`))()
	until("a message that does not decode", "ShopDeadLetters")

	stop = load(publish("orders.paid", map[string]any{"order_id": "1", "user_id": "unknown"}))
	until("messages about unknown users", "ShopMessagesRetried")
	stop()

	stop = load(order("pm_card_visa"))
	processor := func(mode string) {
		t.Helper()
		if code, body := ask(t, ctx, admin, "PUT", gateway+"/payments/api/v1/processor",
			fmt.Sprintf(`{"mode":%q}`, mode)); code != http.StatusOK {
			t.Fatalf("mode %s: %d %v", mode, code, body)
		}
	}
	processor("slow")
	until("a slow payment processor", "ShopGatewaySlowBurnFast", "ShopGatewaySlowBurnSteady", "ShopGatewaySlowBurnSlowly")
	processor("down")
	until("a payment processor that is down", "ShopBreakerOpen", "ShopSagaOld")
	processor("ok")

	makeStuck(t, f.args["orders"])
	until("a saga that needs an operator", "ShopSagaStuck")

	proxy.Refuse(true)
	proxy.Cut()
	until("the broker is away", "ShopOutboxLag")
	proxy.Refuse(false)

	if err := f.processes["notifications"].stop(syscall.SIGKILL); err == nil {
		t.Error("notifications was not killed")
	}
	stop()
	stop = load(func() {
		_, _, _ = send(ctx, ana, "GET", gateway+"/notifications/api/v1/notifications", "")
	})
	until("a service is killed", "ShopServiceDown", "ShopGatewayErrorsBurnFast", "ShopGatewayErrorsBurnSteady",
		"ShopGatewayErrorsBurnSlowly")
	stop()

	for _, name := range alerts {
		at, ok := fired[name]
		if !ok {
			t.Errorf("the alert %s never fired: provoke its cause here", name)
		}
		t.Logf("%6.1f s  %s", at.Seconds(), name)
	}
}

// makeStuck makes a saga of the orders service stuck, as if the attempts of its last step had been used up.
func makeStuck(t *testing.T, args []string) {
	t.Helper()
	db := sqldb.Must(sqldb.Open(t.Context(), args[slices.Index(args, "--db")+1], sqldb.Config{}))
	defer db.Close()
	store := sagasql.Must(sagasql.New(db, sagasql.Config{History: true}))
	list, err := store.List(t.Context(), saga.Filter{Name: "place-order", Statuses: []saga.Status{saga.Completed}, Limit: 1})
	if err != nil || len(list) != 1 {
		t.Fatalf("%d completed sagas, %v", len(list), err)
	}
	r := list[0]
	r.Status, r.Cursor, r.FailedStep, r.Cause = saga.Stuck, len(r.Steps)-1, r.Steps[len(r.Steps)-1].Name, "no answer"
	r.Steps[r.Cursor].Status, r.Steps[r.Cursor].Error = saga.StepFailed, "no answer"
	if err := store.Save(t.Context(), r); err != nil {
		t.Fatal(err)
	}
}
