package deploy

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"testing"
)

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
