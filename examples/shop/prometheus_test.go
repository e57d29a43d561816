package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sillar-go/sillar/internal/testenv"
)

// startPrometheus runs a Prometheus that scrapes the targets, with the rules in a folder if that is not "", and returns
// its address. The label job is the service's name, or what job says.
func startPrometheus(t *testing.T, targets map[string]string, job, rules string) string {
	t.Helper()
	name := cmp.Or(os.Getenv("SILLAR_PROMETHEUS"), "prometheus")
	binary, err := exec.LookPath(name)
	if err != nil {
		testenv.Missing(t,
			"no prometheus: apt-get install prometheus, or tools/services up as root, or name it in SILLAR_PROMETHEUS")
	}
	dir := t.TempDir()
	var config strings.Builder
	config.WriteString("global: {scrape_interval: 250ms, evaluation_interval: 250ms}\n")
	if rules != "" {
		fmt.Fprintf(&config, "rule_files: [%q]\n", filepath.Join(rules, "*.yml"))
	}
	config.WriteString("scrape_configs:\n")
	for name, address := range targets {
		fmt.Fprintf(&config, "- {job_name: %s, static_configs: [{targets: [%q], labels: {service: %s, job: %s}}]}\n", name,
			address, name, cmp.Or(job, name))
	}
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, []byte(config.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	cmd := exec.Command(binary, "--config.file="+file, "--storage.tsdb.path="+dir, "--web.listen-address="+address,
		"--log.level=warn")
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("prometheus: %.2000s", log.String())
		}
	})
	return "http://" + address
}

// query asks Prometheus and returns the values, by labels.
func query(prometheus, q string) (map[string]string, error) {
	res, err := http.PostForm(prometheus+"/api/v1/query", url.Values{"query": {q}})
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	var answer struct {
		Error string
		Data  struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		return nil, fmt.Errorf("status %d: %w", res.StatusCode, err)
	}
	if answer.Error != "" {
		return nil, fmt.Errorf("%s", answer.Error)
	}
	out := map[string]string{}
	for _, r := range answer.Data.Result {
		out[fmt.Sprint(r.Metric)] = fmt.Sprint(r.Value[1])
	}
	return out, nil
}

var questions = regexp.MustCompile("(?s)```promql\n(.*?)```")

// A real Prometheus scrapes a shop that works, and every query of the page on telemetry has an answer there.
func TestPrometheusAnswersThePage(t *testing.T) {
	o := &options{host: "127.0.0.1", portOffset: -1, data: t.TempDir(), broker: "memory:", log: "none", logLevel: "error",
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
	targets := map[string]string{}
	for _, s := range h.services {
		targets[s.Name] = strings.TrimPrefix(s.URL(), "http://")
	}
	prometheus := startPrometheus(t, targets, "", "")

	page, err := os.ReadFile("../../docs/telemetry.md")
	if err != nil {
		t.Fatal(err)
	}
	var open []string
	for _, m := range questions.FindAllStringSubmatch(string(page), -1) {
		open = append(open, strings.TrimSpace(m[1]))
	}
	if len(open) < 8 {
		t.Fatalf("%d queries on the page: the search itself is broken", len(open))
	}
	open = append(open, "count(up == 1) == 7",
		`sum(http_requests_total{job="orders", endpoint="/api/v1/orders", method="POST", status="201"}) > 2`,
		`sum(sillar_messaging_handled_total{outcome="ack"}) > 1`, `min(process_start_time_seconds)`)
	open = append(open, panels(t)...)
	open = append(open,
		`sum(dependency_request_duration_seconds_count{job="payments", dependency_name="payment-processor", status="success"}) > 1`,
		`sum(business_operation_duration_seconds_count{job="orders", operation="place_order"}) > 1`,
		`sum(sillar_authn_refused_total) > 0`)
	token := signIn(t, h.URL(), "ana")
	last := map[string]error{}
	for end := time.Now().Add(20 * time.Second); len(open) > 0 && time.Now().Before(end); {
		_, _ = ask(t, t.Context(), token, "POST", h.URL()+"/orders/api/v1/orders",
			`{"items":[{"product_id":"prod-lamp","quantity":1}],"payment_method":"pm_card_visa"}`)
		_, _ = ask(t, t.Context(), "not-a-token", "GET", h.URL()+"/orders/api/v1/orders", "")
		var rest []string
		for _, q := range open {
			answer, err := query(prometheus, q)
			if err == nil && !numbers(answer) {
				err = fmt.Errorf("answered %v", answer)
			}
			if last[q] = err; err != nil {
				rest = append(rest, q)
			}
		}
		open = rest
		time.Sleep(100 * time.Millisecond)
	}
	for _, q := range open {
		t.Errorf("no answer to %s: %v", q, last[q])
	}
	answer, err := query(prometheus, "http_requests_total")
	if err != nil || len(answer) == 0 || len(answer) > 200 {
		t.Errorf("%d series of requests, %v", len(answer), err)
	}
}

// panels returns the expressions of all dashboards, as Grafana would ask them for this shop.
func panels(t *testing.T) (exprs []string) {
	t.Helper()
	files, err := filepath.Glob("deploy/observe/grafana/dashboards/*.json")
	if err != nil || len(files) < 4 {
		t.Fatalf("%d dashboards, %v", len(files), err)
	}
	as := strings.NewReplacer(`job="shop", `, "", `job="shop"`, "", "$__rate_interval", "5s", "$service", ".*", "$saga",
		".*", `up{}`, "up")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var d struct {
			Panels []struct{ Targets []struct{ Expr string } }
		}
		if err := json.Unmarshal(text, &d); err != nil {
			t.Fatal(err)
		}
		for _, p := range d.Panels {
			for _, target := range p.Targets {
				exprs = append(exprs, as.Replace(target.Expr))
			}
		}
	}
	return exprs
}

// numbers reports whether there is an answer that is a number.
func numbers(answer map[string]string) bool {
	for _, v := range answer {
		if v != "NaN" && !strings.HasSuffix(v, "Inf") {
			return true
		}
	}
	return false
}
