// Command bench runs the benchmarks, of the packages and of the module that knows our peers, and writes one table a
// package: the median of the runs, and how it stands beside ours.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ours are the names under which benchmarks run this library: what else is in their place is a peer.
var ours = []string{"sillar", "verify", "gateway"}

// modules are the go commands' folders and what they measure there.
var modules = []struct {
	dir      string
	packages []string
}{
	{".", []string{"./authn", "./gateway", "./observability"}},
	{"benchmarks", []string{"./..."}},
}

func main() {
	root := flag.String("root", "..", "the library's folder")
	benchtime := flag.String("benchtime", "1s", "how long each benchmark runs")
	count := flag.Int("count", 5, "how often")
	out := flag.String("o", "benchmarks/RESULTS.md", "where the tables go, below root")
	flag.Parse()
	if err := run(context.Background(), *root, *benchtime, *count, *out); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, root, benchtime string, count int, out string) error {
	if err := os.Chdir(root); err != nil {
		return err
	}
	load, _ := os.ReadFile("/proc/loadavg")
	var page, failed bytes.Buffer
	fmt.Fprintf(&page,
		"# Results\n\nWritten by `make bench`: the median of %d runs of %s each. The last column is the time as a "+
			"multiple of ours.\n\n", count, benchtime)
	fmt.Fprintf(&page, "%s, %s %s/%s, %d CPUs", time.Now().UTC().Format("2006-01-02 15:04 UTC"), runtime.Version(),
		runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
	if first, _, ok := strings.Cut(string(load), " "); ok {
		fmt.Fprintf(&page, ", load %s at the start (above 1, compare only within a table)", first)
	}
	page.WriteString(".\n")
	for _, m := range modules {
		args := append([]string{"test", "-run", "^$", "-bench", ".", "-benchmem", "-benchtime", benchtime, "-count",
			strconv.Itoa(count)}, m.packages...)
		cmd := exec.CommandContext(ctx, "go", args...) //nolint:gosec // the arguments are ours
		cmd.Dir = m.dir
		var text bytes.Buffer
		cmd.Stdout, cmd.Stderr = io.MultiWriter(&text, os.Stderr), os.Stderr
		if err := cmd.Run(); err != nil {
			fmt.Fprintf(&failed, "go test in %s: %v\n", m.dir, err)
		}
		tables(&page, text.String())
		peers, err := versions(ctx, m.dir)
		if err != nil {
			return err
		}
		fmt.Fprintf(&page, "\n%s\n", peers)
	}
	if failed.Len() > 0 { // a table with holes is no result
		return errors.New(strings.TrimSpace(failed.String()))
	}
	return os.WriteFile(out, page.Bytes(), 0o644) //nolint:gosec // a page of the repository
}

// row is one benchmark with its runs.
type row struct {
	parts             []string
	ns, bytes, allocs []float64
}

func tables(w io.Writer, text string) {
	var rows []*row
	pkg := ""
	flush := func() {
		if len(rows) > 0 {
			table(w, pkg, rows)
		}
		rows = nil
	}
	for line := range strings.Lines(text) {
		if p, ok := strings.CutPrefix(line, "pkg: "); ok {
			flush()
			pkg = strings.TrimPrefix(strings.TrimSpace(p), "github.com/sillar-go/sillar/")
			continue
		}
		f := strings.Fields(line)
		if len(f) < 4 || !strings.HasPrefix(f[0], "Benchmark") || f[3] != "ns/op" {
			continue
		}
		parts := strings.Split(strings.TrimPrefix(f[0], "Benchmark"), "/")
		i := slices.IndexFunc(rows, func(r *row) bool { return slices.Equal(r.parts, parts) })
		if i < 0 {
			i, rows = len(rows), append(rows, &row{parts: parts})
		}
		for j := 2; j+1 < len(f); j += 2 {
			v, err := strconv.ParseFloat(f[j], 64)
			if err != nil {
				continue
			}
			switch f[j+1] {
			case "ns/op":
				rows[i].ns = append(rows[i].ns, v)
			case "B/op":
				rows[i].bytes = append(rows[i].bytes, v)
			case "allocs/op":
				rows[i].allocs = append(rows[i].allocs, v)
			}
		}
	}
	flush()
}

func table(w io.Writer, pkg string, rows []*row) {
	fmt.Fprintf(w, "\n## %s\n\n| benchmark | time | bytes | allocations | of ours |\n|---|---:|---:|---:|---:|\n", pkg)
	for _, r := range rows {
		ratio := ""
		if own := base(r, rows); own != nil {
			ratio = fmt.Sprintf("%.2f", median(r.ns)/median(own.ns))
		}
		fmt.Fprintf(w, "| %s | %s | %.0f | %.0f | %s |\n", strings.Join(r.parts, " / "),
			took(median(r.ns)), median(r.bytes), median(r.allocs), ratio)
	}
}

// base finds the row that is ours where this one may be a peer's: the same name but for one part.
func base(r *row, rows []*row) *row {
	for _, o := range rows {
		if len(o.parts) != len(r.parts) {
			continue
		}
		differ, own := 0, false
		for i, p := range o.parts {
			name, _, _ := strings.Cut(p, "-") // the last part carries the number of CPUs
			isOurs := slices.Contains(ours, name)
			own = own || isOurs
			if p != r.parts[i] {
				differ++
				if !isOurs {
					differ++
				}
			}
		}
		if own && differ <= 1 {
			return o
		}
	}
	return nil
}

func took(ns float64) string {
	switch {
	case ns < 1e3:
		return fmt.Sprintf("%.1f ns", ns)
	case ns < 1e6:
		return fmt.Sprintf("%.2f µs", ns/1e3)
	}
	return fmt.Sprintf("%.2f ms", ns/1e6)
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

// versions lists what a module requires itself.
func versions(ctx context.Context, dir string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f",
		"{{if not (or .Indirect .Main)}}{{.Path}} {{.Version}}{{end}}", "all")
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go list -m in %s: %w", dir, err)
	}
	var list []string
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "github.com/sillar-go/") {
			list = append(list, line)
		}
	}
	return "Versions: " + strings.Join(list, ", ") + ".", nil
}
