package deploy

import (
	"bufio"
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

// startShop runs the shop in a process of its own and returns the offset of its ports.
func startShop(t *testing.T) (offset int) {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "shop")
	build := append([]string{"build", "-o", bin}, testenv.BuildFlags()...)
	if out, err := exec.CommandContext(t.Context(), "go", append(build, "../")...).CombinedOutput(); err != nil {
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
