package deploy

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sillar-go/sillar/examples/shop/internal/shopclient"
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

func rules(t *testing.T, name string) (out []object) {
	t.Helper()
	for _, o := range decode(t, name, read(t, name)) {
		for _, g := range o.list("groups") {
			for _, r := range object(g.(map[string]any)).list("rules") {
				out = append(out, object(r.(map[string]any)))
			}
		}
	}
	return out
}

// expressions are all of the rules and dashboards, by where they stand.
func expressions(t *testing.T) (exprs map[string]string, records map[string]bool) {
	t.Helper()
	exprs, records = map[string]string{}, map[string]bool{}
	for _, name := range glob(t, "observe/rules/*.yml") {
		for _, r := range rules(t, name) {
			if r.text("record") != "" {
				records[r.text("record")] = true
			}
			exprs[name+" "+r.text("alert")+r.text("record")] = r.text("expr")
		}
	}
	for _, name := range glob(t, "observe/grafana/dashboards/*.json") {
		var d struct {
			UID    string
			Panels []struct {
				Title   string
				Targets []struct{ Expr string }
			}
		}
		if err := json.Unmarshal(read(t, name), &d); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if d.UID == "" || len(d.Panels) == 0 {
			t.Errorf("%s is empty", name)
		}
		for _, p := range d.Panels {
			if len(p.Targets) == 0 {
				t.Errorf("%s: %s shows nothing", name, p.Title)
			}
			for i, target := range p.Targets {
				exprs[fmt.Sprintf("%s %s %d", name, p.Title, i)] = target.Expr
			}
		}
	}
	return exprs, records
}

var (
	quoted   = regexp.MustCompile(`"[^"]*"`)
	selector = regexp.MustCompile(`([a-zA-Z_:][a-zA-Z0-9_:]*)\s*\{([^}]*)\}`)
	grouping = regexp.MustCompile(`\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)`)
	ranges   = regexp.MustCompile(`\[[^\]]*\]|\boffset\s+\w+`)
	word     = regexp.MustCompile(`[a-zA-Z_:][a-zA-Z0-9_:]*`)
	called   = regexp.MustCompile(`[a-zA-Z_]\w*\s*\(`)
	keywords = []string{"and", "or", "unless", "bool", "inf", "nan"}
)

// names are the metrics of an expression, each with the labels that it is selected by, and the labels that it is
// grouped by.
func names(expr string) (metrics map[string][]string, grouped []string) {
	metrics = map[string][]string{}
	expr = ranges.ReplaceAllString(quoted.ReplaceAllString(expr, `""`), " ")
	for _, m := range selector.FindAllStringSubmatch(expr, -1) {
		metrics[m[1]] = append(metrics[m[1]], word.FindAllString(m[2], -1)...)
	}
	for _, m := range grouping.FindAllStringSubmatch(expr, -1) {
		grouped = append(grouped, word.FindAllString(m[1], -1)...)
	}
	rest := called.ReplaceAllString(grouping.ReplaceAllString(selector.ReplaceAllString(expr, " "), " "), " ")
	for _, w := range word.FindAllString(regexp.MustCompile(`\b[0-9][\w.]*`).ReplaceAllString(rest, " "), -1) {
		if !slices.Contains(keywords, w) && metrics[w] == nil {
			metrics[w] = []string{}
		}
	}
	return metrics, grouped
}

func TestMetricNamesOfAnExpressionAreFound(t *testing.T) {
	m, by := names(`topk(8, histogram_quantile(0.95, sum by (le, a) (rate(x_bucket{job="shop", le=~"1|1[.]0"}[$__rate_interval])))) / y > 14.4 * 0.001 and (z:z offset 5m) or vector(0)`)
	if fmt.Sprint(m) != "map[x_bucket:[job le] y:[] z:z:[]]" || fmt.Sprint(by) != "[le a]" {
		t.Errorf("read %v, by %v", m, by)
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

// startShop runs the shop in a process of its own and returns the offset of its ports.
func startShop(t *testing.T) (offset int) {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "shop")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "../").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	offset = freeOffset(t)
	cmd := exec.Command(bin, "--port-offset", strconv.Itoa(offset), "--data", t.TempDir())
	var out strings.Builder
	cmd.Env = append(os.Environ(), "SHOP_HOST=0.0.0.0", "SHOP_LOG=stdout") // as in the image
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the shop ended with %v:\n%s", err, out.String())
		}
	})
	for name, port := range ports {
		url := fmt.Sprintf("http://127.0.0.1:%d/ready", port+offset)
		for end := time.Now().Add(30 * time.Second); exec.CommandContext(t.Context(), bin, "healthcheck", "--url",
			url).Run() != nil; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s is not ready", name)
			}
		}
	}
	return offset
}

// freeOffset finds an offset at which all ports of the shop are free.
func freeOffset(t *testing.T) int {
	t.Helper()
search:
	for offset := 15000; offset < 15400; offset += 7 {
		for _, port := range append(slices.Collect(maps.Values(ports)), grpcPort) {
			l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port+offset))
			if err != nil {
				continue search
			}
			_ = l.Close()
		}
		return offset
	}
	t.Fatal("no free ports")
	return 0
}

// buy places one order, and one that is declined.
func buy(t *testing.T, gateway string) {
	t.Helper()
	c, err := shopclient.Login(t.Context(), gateway, "ana", "ana-password", "metrics")
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) { // the stock comes by an event
		if a, err := c.Do(t.Context(), "GET", "/inventory/api/v1/inventory/prod-lamp", nil); err == nil &&
			a.Status == http.StatusOK {
			break
		}
		if time.Now().After(end) {
			t.Fatal("there are no lamps")
		}
	}
	for _, method := range []string{"pm_card_visa", "pm_card_declined"} {
		a, err := c.Do(t.Context(), "POST", "/orders/api/v1/orders", map[string]any{"payment_method": method,
			"items": []map[string]any{{"product_id": "prod-lamp", "quantity": 1}}}, "Idempotency-Key", "metrics-"+method)
		if err != nil || a.Status != http.StatusCreated {
			t.Fatalf("order by %s: %d %s %v", method, a.Status, a.Body, err)
		}
	}
}

var label = regexp.MustCompile(`([a-zA-Z_]\w*)="`)

// scrape notes the names of a service's metrics, each with its labels.
func scrape(t *testing.T, url string, have map[string]map[string]bool) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		line := lines.Text()
		name := word.FindString(line)
		if strings.HasPrefix(line, "#") || name == "" {
			continue
		}
		if have[name] == nil {
			have[name] = map[string]bool{}
		}
		for _, m := range label.FindAllStringSubmatch(line, -1) {
			have[name][m[1]] = true
		}
	}
	if err := lines.Err(); err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d %v", url, res.StatusCode, err)
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
