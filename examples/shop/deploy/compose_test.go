package deploy

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sillar-go/sillar/examples/shop/internal/platform"
)

func compose(t *testing.T) object {
	t.Helper()
	docs := decode(t, "compose.yaml", read(t, "compose.yaml"))
	if len(docs) != 1 {
		t.Fatalf("compose.yaml has %d documents", len(docs))
	}
	return docs[0]
}

// size reads 64m, 72MiB, 128Mi.
func size(t *testing.T, s string) int {
	t.Helper()
	m := regexp.MustCompile(`^(\d+)(m|M|Mi|MiB)$`).FindStringSubmatch(s)
	if m == nil {
		t.Errorf("%q is no size", s)
		return 0
	}
	n, _ := strconv.Atoi(m[1])
	return n
}

func TestComposeServices(t *testing.T) {
	c := compose(t)
	for name, port := range ports {
		s := c.object("services", name)
		if s == nil {
			t.Errorf("%s is not in compose.yaml", name)
			continue
		}
		if got := fmt.Sprint(s.at("command")); got != "["+name+"]" {
			t.Errorf("%s runs %s", name, got)
		}
		health := fmt.Sprint(s.list("healthcheck", "test")...)
		if !strings.Contains(health, "/shop") || !strings.Contains(health, fmt.Sprintf("http://127.0.0.1:%d/ready", port)) {
			t.Errorf("%s: the health check asks %s", name, health)
		}
		if s.at("read_only") != true || fmt.Sprint(s.at("cap_drop")) != "[ALL]" || s.at("security_opt") == nil {
			t.Errorf("%s may do more than it needs", name)
		}
		if limit, goes := size(t, s.text("mem_limit")), size(t, s.text("environment", "GOMEMLIMIT")); goes >= limit ||
			goes < limit/2 {
			t.Errorf("%s: Go keeps to %d MiB of %d", name, goes, limit)
		}
		if name != "gateway" && s.text("environment", "SHOP_DB") != "${"+strings.ToUpper(name)+"_DB:-file:/run/secrets/"+name+
			"_db}" {
			t.Errorf("%s: the DSN is %s", name, s.text("environment", "SHOP_DB"))
		}
		for dep, how := range s.object("depends_on") {
			if cond := object(how.(map[string]any)).text("condition"); cond != "service_healthy" &&
				cond != "service_completed_successfully" {
				t.Errorf("%s waits for %s until %q", name, dep, cond)
			}
			if dep != "vault-init" && c.at("services", dep, "healthcheck") == nil {
				t.Errorf("%s waits for %s, which has no health check", name, dep)
			}
		}
		if name != "gateway" {
			at := c.text("x-environment", "SHOP_"+strings.ToUpper(name)+"_URL")
			if at != "http://"+net.JoinHostPort(name, strconv.Itoa(port)) {
				t.Errorf("%s is looked for at %s", name, at)
			}
		}
	}
	if c.text("x-environment", "SHOP_INSECURE") != "true" {
		t.Error("the services refuse to read keys by http from another machine, unless configured")
	}
	if at := c.text("x-environment", "SHOP_USERS_GRPC"); at != fmt.Sprintf("users:%d", grpcPort) {
		t.Errorf("gRPC is looked for at %s", at)
	}
	if grace, err := time.ParseDuration(c.text("x-service", "stop_grace_period")); err != nil ||
		grace < platform.MaxDrain {
		t.Errorf("a service has %v to end (%v), and may need %v", grace, err, platform.MaxDrain)
	}
}

func TestComposeBounds(t *testing.T) {
	c, total := compose(t), 0
	image := regexp.MustCompile(`^[a-z/-]+:v?\d[\w.-]*$`)
	for name := range c.object("services") {
		s := c.object("services", name)
		limit := size(t, s.text("mem_limit"))
		if s.at("profiles") == nil {
			total += limit
		}
		if s.at("build") == nil && !image.MatchString(s.text("image")) {
			t.Errorf("%s: the image %s is not pinned", name, s.text("image"))
		}
		for _, p := range s.list("ports") {
			if !strings.HasPrefix(fmt.Sprint(p), "127.0.0.1:") {
				t.Errorf("%s: port %v is open to the network", name, p)
			}
		}
	}
	if total > 1536 {
		t.Errorf("what runs by default may take %d MiB, more than 1.5 GB", total)
	}
	for _, profile := range []string{"nats", "kafka", "scale", "vault", "mail", "observe"} {
		found := false
		for name := range c.object("services") {
			found = found || slices.Contains(c.object("services", name).list("profiles"), any(profile))
		}
		if !found {
			t.Errorf("there is no profile %s", profile)
		}
	}
}

// Every file that compose.yaml mounts exists, and every secret is one that secrets.sh makes.
func TestComposeFiles(t *testing.T) {
	c := compose(t)
	script := string(read(t, "secrets.sh"))
	for name := range c.object("configs") {
		if _, err := os.Stat(c.text("configs", name, "file")); err != nil {
			t.Errorf("config %s: %v", name, err)
		}
	}
	for name := range c.object("secrets") {
		file := filepath.Base(c.text("secrets", name, "file"))
		service, kind, _ := strings.Cut(file, "_")
		made := strings.Contains(script, " "+file) || ports[service] != 0 && (kind == "db" || kind == "password") &&
			(strings.Contains(script, "${service}_"+kind) || strings.Contains(script, "users_"+kind))
		if !made {
			t.Errorf("secrets.sh does not make %s", file)
		}
	}
	checkSecretsAndConfigs(t, c)
	// A service has the secrets that it needs, and no others.
	for name := range ports {
		want := []any{"service_secret", "broker"}
		if name != "gateway" {
			want = append(want, name+"_db")
		}
		if got := c.list("services", name, "secrets"); !slices.Equal(got, want) {
			t.Errorf("%s has the secrets %v, and needs %v", name, got, want)
		}
	}
}

// checkSecretsAndConfigs compares what the services name with what the file defines.
func checkSecretsAndConfigs(t *testing.T, c object) {
	t.Helper()
	used := map[string]bool{}
	for name := range c.object("services") {
		s := c.object("services", name)
		for _, kind := range []string{"secrets", "configs"} {
			for _, e := range s.list(kind) {
				source, ok := e.(string)
				if !ok {
					source = object(e.(map[string]any)).text("source")
				}
				if c.at(kind, source) == nil {
					t.Errorf("%s wants the %s %s, which is not there", name, kind, source)
				}
				used[kind+source] = true
			}
		}
		for _, v := range s.list("volumes") {
			from, _, _ := strings.Cut(fmt.Sprint(v), ":")
			if strings.HasPrefix(from, ".") {
				if _, err := os.Stat(from); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			} else if _, ok := c.object("volumes")[from]; !ok {
				t.Errorf("%s: the volume %s is not there", name, from)
			}
		}
	}
	for _, kind := range []string{"secrets", "configs"} {
		for name := range c.object(kind) {
			if !used[kind+name] {
				t.Errorf("no service uses the %s %s", kind, name)
			}
		}
	}
}

// Both gateways of the profile scale are the same but for their port, and count limits in its Redis.
func TestComposeGatewaysShareLimits(t *testing.T) {
	c := compose(t)
	first, second := c.object("services", "gateway"), c.object("services", "gateway-2")
	for name := range first {
		if name != "ports" && !reflect.DeepEqual(first[name], second[name]) {
			t.Errorf("%s of gateway-2 is %v, want %v", name, second[name], first[name])
		}
	}
	if at := second.text("environment", "SHOP_DB"); at != "${LIMITS:-}" {
		t.Errorf("limits are counted at %s", at)
	}
	_, limits, _ := strings.Cut(string(read(t, "compose/scale.env")), "LIMITS=")
	u, err := url.Parse(strings.TrimSpace(limits))
	if err != nil || u.Scheme != "redis" {
		t.Fatalf("scale.env counts limits at %q (%v), want a Redis", limits, err)
	}
	redis := c.object("services", u.Hostname())
	if redis == nil || !slices.Contains(redis.list("profiles"), any("scale")) || redis.at("healthcheck") == nil {
		t.Errorf("%s is no service of the profile scale with a health check", u.Hostname())
	}
	for _, network := range redis.list("networks") {
		if !slices.Contains(second.list("networks"), network) {
			t.Errorf("the gateways are not in the network %v of Redis", network)
		}
	}
}
