// Package deploy holds the deployment files of the shop; its tests compare them with the shop.
package deploy

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// ports are the shop's; TestPortsAreTheShops holds them to its source.
var ports = map[string]int{"gateway": 8080, "users": 8000, "products": 8001, "orders": 8002, "inventory": 8003,
	"payments": 8004, "notifications": 8005}

const grpcPort = 50051

// object is a YAML mapping.
type object map[string]any

// at walks down: keys of mappings, numbers of lists.
func (o object) at(path ...any) any {
	var v any = map[string]any(o)
	for _, p := range path {
		switch p := p.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[p]
		case int:
			l, _ := v.([]any)
			if p >= len(l) {
				return nil
			}
			v = l[p]
		}
	}
	return v
}

func (o object) text(path ...any) string { s, _ := o.at(path...).(string); return s }

func (o object) list(path ...any) []any { l, _ := o.at(path...).([]any); return l }

func (o object) object(path ...any) object { m, _ := o.at(path...).(map[string]any); return m }

// number reads an integer, however the parser has typed it.
func number(v any) int {
	switch n := v.(type) {
	case uint64:
		return int(n)
	case int64:
		return int(n)
	case int:
		return n
	case float64:
		return int(n)
	}
	return -1
}

// decode reads all documents of a YAML or JSON file.
func decode(t *testing.T, name string, raw []byte) (docs []object) {
	t.Helper()
	d := yaml.NewDecoder(bytes.NewReader(raw))
	for {
		var o map[string]any
		err := d.Decode(&o)
		if errors.Is(err, io.EOF) {
			return docs
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if o != nil {
			docs = append(docs, o)
		}
	}
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// files lists the deployment files, without secrets that were generated here.
func files(t *testing.T) (names []string) {
	t.Helper()
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && p == "secrets" {
			return filepath.SkipDir
		}
		if !d.IsDir() {
			names = append(names, p)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestEveryFileParses(t *testing.T) {
	seen := 0
	for _, name := range files(t) {
		if ext := filepath.Ext(name); ext == ".yaml" || ext == ".yml" || ext == ".json" {
			seen++
			if len(decode(t, name, read(t, name))) == 0 {
				t.Errorf("%s is empty", name)
			}
		}
	}
	if seen < 20 {
		t.Fatalf("only %d files were found", seen)
	}
}

var (
	// A value behind a word for a secret, in YAML, in an environment or in a URL.
	secretValue = regexp.MustCompile(`(?i)(password|passwd|secret|token|api_?key|keyFile)["']?\s*[:=]\s*["']?([^\s"',}]+)`)
	urlPassword = regexp.MustCompile(`[a-z]+://[^/\s:@]+:([^@\s]+)@`)
	// psql's own quoting of a variable.
	psqlVariable = regexp.MustCompile(`:'\w+'`)
	randomText   = regexp.MustCompile(`\b([0-9a-fA-F]{24,}|[A-Za-z0-9+]{40,}={0,2})\b`)
	// A value that is none: a reference, a variable, a file, a folder of them, or a name in the cluster.
	reference = regexp.MustCompile(`^(file:|env:|vault:|\$|/run/secrets|\./secrets/|@/run|\{|\[|SECRET|%s|true|false|shop-|require\()`)
)

// secretIn says which value in a line looks like a secret.
func secretIn(line string) string {
	line = psqlVariable.ReplaceAllString(line, "")
	for _, m := range secretValue.FindAllStringSubmatch(line, -1) {
		if !reference.MatchString(m[2]) {
			return m[0]
		}
	}
	for _, m := range urlPassword.FindAllStringSubmatch(line, -1) {
		if !strings.HasPrefix(m[1], "$") {
			return m[0]
		}
	}
	return randomText.FindString(line)
}

func TestNoSecretValues(t *testing.T) {
	for line, want := range map[string]bool{
		"password: hunter2": true, "POSTGRES_PASSWORD=abc": true, "amqp://shop:abc@rabbitmq/": true,
		"key: 0123456789abcdef0123456789abcdef": true,
		"secret: {name: shop-users}":            false, "SHOP_SERVICE_SECRET: file:/run/secrets/x": false,
		"amqp://shop:$(value x)@rabbitmq/": false,
	} {
		if got := secretIn(line) != ""; got != want {
			t.Errorf("%q looks like a secret: %v", line, got)
		}
	}
	for _, name := range files(t) {
		if filepath.Ext(name) == ".go" || filepath.Ext(name) == ".md" {
			continue
		}
		for i, line := range strings.Split(string(read(t, name)), "\n") {
			if s := secretIn(line); s != "" {
				t.Errorf("%s:%d: this looks like a secret: %s", name, i+1, s)
			}
		}
		for _, o := range yamlOf(t, name) {
			if o.text("kind") == "Secret" {
				t.Errorf("%s holds a Secret; it should name one", name)
			}
		}
	}
	if !strings.Contains(string(read(t, ".gitignore")), "/secrets/") {
		t.Error("git does not ignore secrets/")
	}
}

func yamlOf(t *testing.T, name string) []object {
	if filepath.Ext(name) != ".yaml" {
		return nil
	}
	return decode(t, name, read(t, name))
}

func TestPortsAreTheShops(t *testing.T) {
	src := string(read(t, "../options.go"))
	m := regexp.MustCompile(`var ports = map\[string\]int\{([^}]*)\}`).FindStringSubmatch(src)
	if m == nil {
		t.Fatal("options.go has no ports")
	}
	found := map[string]int{}
	for _, p := range regexp.MustCompile(`"(\w+)": (\d+)`).FindAllStringSubmatch(m[1], -1) {
		n := 0
		for _, d := range p[2] {
			n = n*10 + int(d-'0')
		}
		found[p[1]] = n
	}
	if found["grpc"] != grpcPort {
		t.Errorf("gRPC is on %d", found["grpc"])
	}
	delete(found, "grpc")
	delete(found, "tls") // the gateway's own TLS: here an Ingress ends it
	if len(found) != len(ports) {
		t.Errorf("the shop has %d services, here are %d", len(found), len(ports))
	}
	for name, port := range found {
		if ports[name] != port {
			t.Errorf("%s: %d here, %d in the shop", name, ports[name], port)
		}
	}
}

func TestDockerfileBuildsWhatTheShopNeeds(t *testing.T) {
	text := string(read(t, "Dockerfile"))
	for _, want := range []string{"CGO_ENABLED=0", "-trimpath", "FROM gcr.io/distroless/static-debian12:nonroot",
		"USER 65532:65532", `HEALTHCHECK`, `"/shop", "healthcheck"`} {
		if !strings.Contains(text, want) {
			t.Errorf("the Dockerfile has no %s", want)
		}
	}
	mod := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(string(read(t, "../../../go.mod")))
	if !strings.Contains(text, "golang:"+mod[1]+".") {
		t.Errorf("the Dockerfile does not build with Go %s", mod[1])
	}
	if strings.Contains(text, ":latest") {
		t.Error("an image is not pinned")
	}
	// The release builds what is here, and every folder that the shop is made of gets into the build.
	release := string(read(t, "../../../.github/workflows/release.yml"))
	for _, want := range []string{"context: .\n", "file: examples/shop/deploy/Dockerfile\n"} {
		if !strings.Contains(release, want) {
			t.Errorf("release.yml has no %q", want)
		}
	}
	allowed := strings.Split(string(read(t, "Dockerfile.dockerignore")), "\n")
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f",
		"{{if and .Module .Module.Main}}{{.ImportPath}}{{end}}", "../").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, pkg := range strings.Fields(string(out)) {
		dir := strings.TrimPrefix(pkg, "github.com/sillar-go/sillar/")
		if top, _, _ := strings.Cut(dir, "/"); !slices.Contains(allowed, "!"+top) &&
			!strings.HasPrefix(dir, "examples/shop") {
			t.Errorf("the shop imports %s, which the build does not see", pkg)
		}
	}
}
