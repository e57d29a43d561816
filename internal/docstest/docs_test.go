// Package docstest checks the pages that are not Go: links without a target, and code that no test compiles.
package docstest

import (
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

var (
	link   = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	fence  = regexp.MustCompile("(?ms)^```.*?^```")
	inline = regexp.MustCompile("`[^`\n]*`")
	drop   = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
	// sample is a block of Go and the comment above it that names the file it is part of.
	sample = regexp.MustCompile("(?ms)^<!-- ([^\n]*) -->\n```go\n(.*?)^```")
)

// TestRelativeLinksResolve follows every relative link of every page, and the anchors of those that lead to pages.
func TestRelativeLinksResolve(t *testing.T) {
	n := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") && d.Name() != ".github" || d.Name() == "bin" ||
			d.Name() == "node_modules"):
			return fs.SkipDir
		case d.IsDir() || filepath.Ext(path) != ".md":
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		targets := links(string(text))
		n += len(targets)
		for _, target := range targets {
			if err := follow(path, target); err != nil {
				t.Errorf("%s: %v", strings.TrimPrefix(path, root+"/"), err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n < 20 {
		t.Errorf("%d links found: the search itself is broken", n)
	}
}

// TestFindsDeadLinks shows that the check can fail.
func TestFindsDeadLinks(t *testing.T) {
	page := filepath.Join(t.TempDir(), "page.md")
	text := "# A `b` heading: it\n\n[ok](#a-b-heading-it) [ok](page.md) [ok](https://example.org/x)\n" +
		"[dead](#a-c) [dead](gone.md)\n\n```\n[no](link.md)\n```\n`[no](link.md)`\n"
	if err := os.WriteFile(page, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var dead []string
	for _, target := range links(text) {
		if follow(page, target) != nil {
			dead = append(dead, target)
		}
	}
	if want := []string{"#a-c", "gone.md"}; !slices.Equal(dead, want) {
		t.Errorf("dead links %q, want %q", dead, want)
	}
}

// TestSamplesMatchTheirSources finds each sample of these pages, line for line, in the tested file that the comment
// above it names.
func TestSamplesMatchTheirSources(t *testing.T) {
	pages := []string{"README.md", "docs/coming-from-gobreaker.md", "docs/coming-from-golang-jwt.md",
		"docs/coming-from-gorm.md",
		"docs/coming-from-watermill.md", "docs/testing-your-service.md", "docs/coming-from-otelhttp.md"}
	for _, page := range pages {
		t.Run(page, func(t *testing.T) { checkSamples(t, page) })
	}
}

func checkSamples(t *testing.T, page string) {
	text, err := os.ReadFile(filepath.Join(root, page))
	if err != nil {
		t.Fatal(err)
	}
	samples := sample.FindAllStringSubmatch(string(text), -1)
	if all := strings.Count(string(text), "```go\n"); all != len(samples) || all == 0 {
		t.Errorf("%d of %d samples name the file they are part of", len(samples), all)
	}
	for _, s := range samples {
		source, err := os.ReadFile(filepath.Join(root, s[1]))
		if err != nil {
			t.Error(err)
			continue
		}
		if !strings.HasSuffix(s[1], "_test.go") {
			t.Errorf("%s: nothing runs it", s[1])
		}
		if missing := subset(s[2], string(source)); missing != "" {
			t.Errorf("%s does not have, at its place, the page's line\n\t%s", s[1], missing)
		}
	}
}

// TestFindsStaleSamples shows that the check can fail.
func TestFindsStaleSamples(t *testing.T) {
	source := "func Example() {\n\ta := 1\n\n\tb := 2\n}\n"
	if got := subset("a := 1\nb := 2\n", source); got != "" {
		t.Errorf("a true sample: %q is missing", got)
	}
	if got := subset("b := 2\na := 1\n", source); got != "a := 1" {
		t.Errorf("a sample in another order: %q is missing", got)
	}
	if got := subset("a := 2\n", source); got != "a := 2" {
		t.Errorf("another sample: %q is missing", got)
	}
}

func links(text string) (targets []string) {
	text = inline.ReplaceAllString(fence.ReplaceAllString(text, ""), "")
	for _, m := range link.FindAllStringSubmatch(text, -1) {
		targets = append(targets, m[1])
	}
	return targets
}

// follow says why a link of a page leads nowhere. Other hosts are not asked.
func follow(page, target string) error {
	u, err := url.Parse(target)
	if err != nil || u.Scheme != "" {
		return err
	}
	path := page
	if u.Path != "" {
		path = filepath.Join(filepath.Dir(page), filepath.FromSlash(u.Path))
	}
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("dead link %s", target)
	}
	if u.Fragment == "" || filepath.Ext(path) != ".md" {
		return nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for line := range strings.Lines(fence.ReplaceAllString(string(text), "")) {
		if title := strings.TrimLeft(line, "#"); title != line && anchor(title) == u.Fragment {
			return nil
		}
	}
	return fmt.Errorf("dead anchor %s", target)
}

// anchor is what GitHub makes of a heading.
func anchor(title string) string {
	title = drop.ReplaceAllString(strings.ToLower(strings.TrimSpace(title)), "")
	return strings.ReplaceAll(title, " ", "-")
}

// subset returns the first line of the sample that does not follow its predecessor in the source.
func subset(sample, source string) string {
	lines := slices.Collect(strings.Lines(source))
	for want := range strings.Lines(sample) {
		want = strings.TrimSpace(want)
		if want == "" {
			continue
		}
		i := slices.IndexFunc(lines, func(l string) bool { return strings.TrimSpace(l) == want })
		if i < 0 {
			return want
		}
		lines = lines[i+1:]
	}
	return ""
}
