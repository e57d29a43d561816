package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sillar-go/sillar/examples/shop/gateway"
	"github.com/sillar-go/sillar/gateway/gatewayyaml"
)

// The file in the repository says what the program does without one.
func TestRoutesOfTheShop(t *testing.T) {
	got, err := gatewayyaml.Load("gateway/routes.yaml")
	if err != nil {
		t.Fatal(err)
	}
	o := &options{}
	o.fillPeers()
	breakers := cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".Breaker" }, cmp.Ignore())
	if d := cmp.Diff(gateway.Routes(o.peers), got, breakers); d != "" {
		t.Fatal(d)
	}
	for _, r := range append(gateway.Routes(o.peers), got...) {
		if err := r.Validate(); err != nil {
			t.Error(err)
		}
	}
}

// The gateway alone, in a process of its own: no broker, no secret, routes from a file that changes under it.
func TestGatewayRunsAlone(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "from the service: ", r.URL.Path)
	}))
	t.Cleanup(up.Close)
	file := filepath.Join(t.TempDir(), "routes.yaml")
	replace := func(text string) {
		t.Helper()
		if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	route := func(prefix string) string {
		return "routes:\n  - prefix: " + prefix + "\n    upstreams: [\"" + up.URL + "\"]\n    public: [GET /**]\n"
	}
	run := func() (*exec.Cmd, io.Reader) {
		t.Helper()
		cmd := exec.Command(os.Args[0], "gateway", "--config", file, "--port-offset", "-1")
		cmd.Env = append(os.Environ(), "SHOP_TEST_MAIN=1")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stderr = cmd.Stdout
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill() })
		return cmd, out
	}

	replace(route("/a") + "    role: [admin]\n")
	cmd, out := run()
	text, _ := io.ReadAll(out)
	if err := cmd.Wait(); err == nil || !strings.Contains(string(text), "line 5, column 5") ||
		!strings.Contains(string(text), "role") {
		t.Fatalf("a file that is wrong at the start: %v %s", err, text)
	}

	replace(route("/a"))
	cmd, out = run()
	lines := bufio.NewScanner(out)
	until := func(what string) map[string]any { // reads the log
		t.Helper()
		for lines.Scan() {
			doc := map[string]any{}
			_ = json.Unmarshal(lines.Bytes(), &doc)
			if strings.Contains(fmt.Sprint(doc["message"]), what) {
				return doc
			}
		}
		t.Fatalf("the log has no %q", what)
		return nil
	}
	giveUp := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
	defer giveUp.Stop()
	url := fmt.Sprint(until("service started")["address"])
	get := func(path string) string {
		t.Helper()
		res, err := http.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, _ := io.ReadAll(res.Body)
		return fmt.Sprint(res.StatusCode, " ", string(text))
	}
	if got := get("/a/x"); got != "200 from the service: /x" {
		t.Fatal(got)
	}
	if got := get("/"); !strings.HasPrefix(got, "200") || strings.Contains(got, "/live/") ||
		!strings.HasPrefix(get("/live/stream"), "404") {
		t.Fatalf("a gateway alone has the page of a whole shop: %.200s", got)
	}
	replace(route("/b"))
	until("routes reloaded")
	if got := get("/b/x"); got != "200 from the service: /x" || !strings.HasPrefix(get("/a/x"), "404") {
		t.Fatal(got)
	}
	replace(route("/c") + "    timeout: soon\n")
	if e := fmt.Sprint(until("not valid")["error"]); !strings.Contains(e, "line 5, column 14") ||
		!strings.Contains(e, `route "/c"`) {
		t.Fatal(e)
	}
	if got := get("/b/x"); got != "200 from the service: /x" {
		t.Fatal(got)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, out)
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
}
