package deploy

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/sillar-go/sillar/internal/testenv"
)

const getPromtool = "promtool is not here: apt-get install prometheus, or tools/services up as root"

func promtool(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "promtool", args...)
	if cmd.Err != nil {
		testenv.Missing(t, getPromtool)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil || len(names) == 0 {
		t.Fatalf("%s: nothing is there (%v)", pattern, err)
	}
	return names
}

func TestAlertRulesFire(t *testing.T) {
	promtool(t, append([]string{"test", "rules"}, glob(t, "observe/tests/*.yml")...)...)
}

func TestPrometheusConfig(t *testing.T) {
	promtool(t, "check", "config", "observe/prometheus.yml")
	c := decode(t, "prometheus.yml", read(t, "observe/prometheus.yml"))[0]
	found := map[string]string{}
	for _, s := range c.list("scrape_configs", 0, "static_configs") {
		o := object(s.(map[string]any))
		found[o.text("labels", "service")] = fmt.Sprint(o.list("targets")...)
	}
	for name, port := range ports {
		if found[name] != fmt.Sprintf("%s:%d", name, port) {
			t.Errorf("%s is scraped at %q", name, found[name])
		}
	}
	alerts := 0
	tests := ""
	for _, name := range glob(t, "observe/tests/*.yml") {
		tests += string(read(t, name))
	}
	for _, name := range glob(t, "observe/rules/*.yml") {
		for _, r := range rules(t, name) {
			if a := r.text("alert"); a != "" {
				alerts++
				if !strings.Contains(tests, "alertname: "+a+"\n") {
					t.Errorf("the alert %s has no test", a)
				}
			}
		}
	}
	if alerts == 0 {
		t.Error("there are no alerts")
	}
}

// onlyOnFailure are metrics that a shop in which nothing fails does not have yet.
// It is empty: what rises on failure is a label of something that is there.
var onlyOnFailure = map[string]bool{}

// given are labels that Prometheus adds when it scrapes.
var given = []string{"job", "service", "instance"}

// A shop is started, sells a lamp, and is scraped: rules and dashboards speak of nothing that it does not tell.
func TestMetricsExist(t *testing.T) {
	if testing.Short() {
		testenv.Missing(t, "builds and starts the shop: run without -short")
	}
	offset := startShop(t)
	at := func(name string) string { return "http://127.0.0.1:" + strconv.Itoa(ports[name]+offset) }
	buy(t, at("gateway"))
	have := map[string]map[string]bool{}
	for name := range ports {
		scrape(t, at(name), have)
	}
	have["up"] = map[string]bool{}
	exprs, records := expressions(t)
	checked := 0
	for where, expr := range exprs {
		metrics, grouped := names(expr)
		labels := slices.Clone(given)
		for m, selected := range metrics {
			if records[m] {
				continue
			}
			checked++
			if have[m] == nil {
				if !onlyOnFailure[m] {
					t.Errorf("%s: the shop has no %s", where, m)
				}
				continue
			}
			for l := range have[m] {
				labels = append(labels, l)
			}
			for _, l := range selected {
				if !have[m][l] && !slices.Contains(given, l) {
					t.Errorf("%s: %s has no label %s", where, m, l)
				}
			}
		}
		for _, l := range grouped {
			if !slices.Contains(labels, l) {
				t.Errorf("%s: nothing in it has the label %s", where, l)
			}
		}
	}
	if checked < 50 {
		t.Errorf("only %d metrics were found in rules and dashboards", checked)
	}
	for m := range onlyOnFailure {
		if have[m] != nil {
			t.Errorf("%s is there without a failure, and need not be excused", m)
		}
	}
}

// Exemplars need three things: Prometheus keeps them, panels ask for them, and Grafana knows where their traces are.
func TestExemplarsLeadToTraces(t *testing.T) {
	if !strings.Contains(string(read(t, "compose.yaml")), "--enable-feature=exemplar-storage") {
		t.Error("Prometheus keeps no exemplars")
	}
	if !strings.Contains(string(read(t, "observe/grafana/dashboards/services.json")), `"exemplar": true`) {
		t.Error("no panel asks for exemplars")
	}
	linked := false
	for _, d := range decode(t, "datasources.yml", read(t,
		"observe/grafana/provisioning/datasources/datasources.yml"))[0].list("datasources") {
		for _, to := range object(d.(map[string]any)).list("jsonData", "exemplarTraceIdDestinations") {
			linked = linked || object(to.(map[string]any)).text("datasourceUid") == "jaeger" &&
				object(to.(map[string]any)).text("name") == "trace_id"
		}
	}
	if !linked {
		t.Error("Grafana does not know where the traces of exemplars are")
	}
}

var writeRule = flag.Bool("write", false, "write observe/prometheusrule.yaml anew")

// The operator's resource has the groups of all rule files, in their order.
func TestPrometheusRuleHasTheRules(t *testing.T) {
	const name = "observe/prometheusrule.yaml"
	want := "# Made from rules/*.yml: go test ./examples/shop/deploy -run PrometheusRule -write\n" +
		"apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: shop\nspec:\n  groups:\n"
	for _, file := range glob(t, "observe/rules/*.yml") {
		_, groups, found := strings.Cut(string(read(t, file)), "groups:\n")
		if !found {
			t.Fatalf("%s has no groups", file)
		}
		for line := range strings.Lines(groups) {
			if line != "\n" {
				line = "  " + line
			}
			want += line
		}
	}
	if *writeRule {
		if err := os.WriteFile(name, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if string(read(t, name)) != want {
		t.Errorf("%s does not have the rules: go test ./examples/shop/deploy -run PrometheusRule -write", name)
	}
	decode(t, name, []byte(want))
}
