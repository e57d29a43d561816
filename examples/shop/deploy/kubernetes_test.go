package deploy

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sillar-go/sillar/examples/shop/internal/platform"
	"github.com/sillar-go/sillar/internal/testenv"
)

const getKustomize = "kustomize is not here: make bin/kustomize, and put bin into PATH"

// kustomize builds an overlay, by kustomize or by kubectl, which has it inside.
func kustomize(t *testing.T, dir string) []object {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "kustomize", "build", dir)
	if cmd.Err != nil {
		cmd = exec.CommandContext(t.Context(), "kubectl", "kustomize", dir)
	}
	if cmd.Err != nil {
		testenv.Missing(t, getKustomize)
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, stderr.String())
	}
	return decode(t, dir, out)
}

// cluster is what a build makes, by kind and name.
type cluster map[string]object

func load(t *testing.T, overlay string) cluster {
	t.Helper()
	c := cluster{}
	for _, o := range kustomize(t, filepath.Join("kubernetes", overlay)) {
		key := o.text("kind") + "/" + o.text("metadata", "name")
		if c[key] != nil {
			t.Errorf("%s: two of %s", overlay, key)
		}
		c[key] = o
	}
	return c
}

var hash = regexp.MustCompile(`-[0-9a-z]{10}$`)

// config is a ConfigMap by its name without the hash.
func (c cluster) config(name string) object {
	for key, o := range c {
		if hash.ReplaceAllString(key, "") == "ConfigMap/"+name {
			return o
		}
	}
	return nil
}

func TestManifestsMatchTheirSchemas(t *testing.T) {
	for _, overlay := range []string{"base", "overlays/dev", "overlays/prod", "overlays/prod-tls",
		"overlays/gateway-api"} {
		t.Run(filepath.Base(overlay), func(t *testing.T) {
			c := load(t, overlay)
			dev := filepath.Base(overlay) == "dev"
			for name, port := range ports {
				checkDeployment(t, c, name, port, dev)
				checkAround(t, c, name, port, dev)
			}
			checkIngress(t, c)
			checkPolicies(t, c)
			if common := c.config("shop-common"); (filepath.Base(overlay) == "prod") &&
				(common.text("data", "OTEL_EXPORTER_OTLP_ENDPOINT") == "" ||
					common.text("data", "OTEL_TRACES_SAMPLER") == "" || c["PrometheusRule/shop"] == nil ||
					c.config("shop-dashboards") == nil) {
				t.Error("production has no traces, rules or dashboards")
			}
			for key := range c {
				if strings.HasPrefix(key, "Secret/") {
					t.Errorf("%s is made here; it should be named", key)
				}
			}
		})
	}
}

func checkDeployment(t *testing.T, c cluster, name string, port int, dev bool) {
	t.Helper()
	d := c["Deployment/shop-"+name]
	if d == nil {
		t.Errorf("%s has no Deployment", name)
		return
	}
	pod := d.object("spec", "template", "spec")
	box := object(pod.list("containers")[0].(map[string]any))
	bad := func(format string, args ...any) {
		t.Helper()
		t.Errorf("%s: %s", name, fmt.Sprintf(format, args...))
	}
	if fmt.Sprint(box.at("args")) != "["+name+"]" {
		bad("runs %v", box.at("args"))
	}
	if got := number(box.at("ports", 0, "containerPort")); got != port {
		bad("listens on %d, not on %d", got, port)
	}
	for probe, path := range map[string]string{"startupProbe": "/health", "livenessProbe": "/health",
		"readinessProbe": "/ready"} {
		if box.text(probe, "httpGet", "path") != path || box.text(probe, "httpGet", "port") != "http" {
			bad("the %s asks %v", probe, box.at(probe))
		}
	}
	if box.at("resources", "requests", "cpu") == nil || box.at("resources", "requests", "memory") == nil {
		bad("asks for no resources")
	}
	limit := size(t, box.text("resources", "limits", "memory"))
	env := map[string]string{}
	for _, e := range box.list("env") {
		o := object(e.(map[string]any))
		env[o.text("name")] = o.text("value")
	}
	if goes := size(t, env["GOMEMLIMIT"]); goes >= limit || goes < limit/2 {
		bad("Go keeps to %d MiB of %d", goes, limit)
	}
	for _, key := range []string{"SHOP_BROKER", "SHOP_SERVICE_SECRET"} {
		if !strings.HasPrefix(env[key], "file:/run/secrets/shop/") {
			bad("%s is %q", key, env[key])
		}
	}
	sources := fmt.Sprint(pod.at("volumes", 0, "projected", "sources"))
	db := "file:/run/secrets/shop/db"
	if name == "gateway" {
		db = "file:/run/secrets/shop/limits"
	}
	if needs := !dev; needs != (env["SHOP_DB"] == db) || needs != strings.Contains(sources, "shop-"+name) ||
		!strings.Contains(sources, "shop-common") {
		bad("the DSN is %q, of the secrets %s", env["SHOP_DB"], sources)
	}
	if box.at("securityContext", "readOnlyRootFilesystem") != true ||
		box.at("securityContext", "allowPrivilegeEscalation") != false ||
		fmt.Sprint(box.at("securityContext", "capabilities", "drop")) != "[ALL]" ||
		pod.at("securityContext", "runAsNonRoot") != true ||
		pod.text("securityContext", "seccompProfile", "type") != "RuntimeDefault" ||
		pod.at("automountServiceAccountToken") != false {
		bad("may do more than it needs")
	}
	for _, e := range box.list("env") {
		if object(e.(map[string]any)).at("valueFrom", "secretKeyRef") != nil {
			bad("a secret is in the environment: %v", e)
		}
	}
	if spread := pod.list("topologySpreadConstraints"); len(spread) != 2 ||
		object(spread[0].(map[string]any)).text("labelSelector", "matchLabels", "app.kubernetes.io/name") != name {
		bad("its pods are spread by %v", spread)
	}
	for _, ref := range box.list("envFrom") {
		if m := object(ref.(map[string]any)).text("configMapRef", "name"); c["ConfigMap/"+m] == nil {
			bad("the ConfigMap %s is not there", m)
		}
	}
	common := c.config("shop-common")
	delay, err := time.ParseDuration(common.text("data", "SHOP_DRAIN_DELAY"))
	if !dev && delay <= 10*time.Second {
		bad("it drains for %v, no longer than the gateway's health checks take to notice", delay)
	}
	if grace := time.Duration(number(pod.at("terminationGracePeriodSeconds"))) * time.Second; err != nil ||
		grace < delay+platform.MaxDrain {
		bad("it has %v to end (%v), and may need %v", grace, err, delay+platform.MaxDrain)
	}
	if common.text("data", "SHOP_SEED") != strconv.FormatBool(dev) ||
		common.text("data", "SHOP_FAULTS") != strconv.FormatBool(dev) {
		bad("users with known passwords, and faults, are for trying out alone")
	}
	if common.text("data", "SHOP_INSECURE") != "true" && common.text("data", "SHOP_SERVICE_TLS") == "" {
		bad("it refuses to read keys by http from another machine, without SHOP_INSECURE")
	}
	if shared := name == "users" && !dev; shared != (env["SHOP_KEYS_SECRET"] == "file:/run/secrets/shop/keys-secret") ||
		shared != strings.Contains(sources, "keys-secret") {
		bad("the secret of its keys is %q, of the secrets %s", env["SHOP_KEYS_SECRET"], sources)
	}
}

// checkAround checks what goes with a Deployment: that it is selected, scaled and guarded.
func checkAround(t *testing.T, c cluster, name string, port int, dev bool) {
	t.Helper()
	service := c["Service/shop-"+name]
	if got := number(service.at("spec", "ports", 0, "port")); got != port {
		t.Errorf("%s: the Service is on %d", name, got)
	}
	if name == "users" && number(service.at("spec", "ports", 1, "port")) != grpcPort {
		t.Errorf("the Service of users has no gRPC")
	}
	labels := c["Deployment/shop-"+name].object("spec", "template", "metadata", "labels")
	for what, sel := range map[string]object{"Service": service.object("spec", "selector"),
		"PodDisruptionBudget": c["PodDisruptionBudget/shop-"+name].object("spec", "selector", "matchLabels"),
		"Deployment":          c["Deployment/shop-"+name].object("spec", "selector", "matchLabels")} {
		if sel.text("app.kubernetes.io/name") != name {
			t.Errorf("%s: the %s selects %v", name, what, sel)
		}
		for k, v := range sel {
			if labels[k] != v {
				t.Errorf("%s: the %s selects %s=%v, and the pods have %v", name, what, k, v, labels[k])
			}
		}
	}
	scaler := c["HorizontalPodAutoscaler/shop-"+name]
	replicas := 2
	if name == "users" {
		replicas = 3
	}
	if dev != (scaler == nil) {
		t.Errorf("%s: autoscaler %v", name, scaler)
	} else if !dev && (scaler.text("spec", "scaleTargetRef", "name") != "shop-"+name ||
		number(scaler.at("spec", "minReplicas")) < replicas) {
		t.Errorf("%s: the autoscaler scales %v", name, scaler.at("spec"))
	}
	if name != "gateway" {
		if at := c.config("shop-common").text("data", "SHOP_"+strings.ToUpper(name)+
			"_URL"); at != fmt.Sprintf("http://shop-%s:%d", name, port) {
			t.Errorf("%s is looked for at %s", name, at)
		}
	}
}

// Every file is part of a build: an unreferenced file is not deployed.
func TestEveryManifestIsUsed(t *testing.T) {
	err := filepath.WalkDir("kubernetes", func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Base(p) == "kustomization.yaml" {
			return err
		}
		if k := string(read(t, filepath.Join(filepath.Dir(p), "kustomization.yaml"))); !strings.Contains(k,
			filepath.Base(p)) {
			t.Errorf("%s is not referenced", p)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
