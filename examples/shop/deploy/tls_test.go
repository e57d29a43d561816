package deploy

import (
	"fmt"
	"slices"
	"testing"
)

// Each service has a certificate of its own name, mounted where the switch says, and probes that ask by https.
func TestKubernetesWithTLSBetweenServices(t *testing.T) {
	c := load(t, "overlays/prod-tls")
	common := c.config("shop-common")
	dir := common.text("data", "SHOP_SERVICE_TLS")
	if dir == "" || common.text("data", "SHOP_INSECURE") != "false" {
		t.Errorf("got SHOP_SERVICE_TLS %q and SHOP_INSECURE %q", dir, common.text("data", "SHOP_INSECURE"))
	}
	for name := range ports {
		certificate := c["Certificate/shop-"+name+"-tls"]
		if certificate == nil || !slices.Contains(certificate.list("spec", "dnsNames"), any("shop-"+name)) ||
			!slices.Contains(certificate.list("spec", "usages"), any("client auth")) {
			t.Errorf("%s: its certificate is %v", name, certificate)
			continue
		}
		pod := c["Deployment/shop-"+name].object("spec", "template", "spec")
		box := object(pod.list("containers")[0].(map[string]any))
		mounted, from := "", ""
		for _, m := range box.list("volumeMounts") {
			if o := object(m.(map[string]any)); o.text("name") == "tls" {
				mounted = o.text("mountPath")
			}
		}
		for _, v := range pod.list("volumes") {
			if o := object(v.(map[string]any)); o.text("name") == "tls" {
				from = o.text("secret", "secretName")
			}
		}
		if mounted != dir || from != certificate.text("spec", "secretName") {
			t.Errorf("%s: got the secret %q at %q, want %q at %q", name, from, mounted,
				certificate.text("spec", "secretName"), dir)
		}
		want := "HTTPS"
		if name == "gateway" {
			want = ""
		}
		for _, probe := range []string{"startupProbe", "livenessProbe", "readinessProbe"} {
			if got := box.text(probe, "httpGet", "scheme"); got != want {
				t.Errorf("%s: the %s has the scheme %q, want %q", name, probe, got, want)
			}
		}
	}
	if c["PodMonitor/shop"] == nil || c["PodMonitor/shop-gateway"] == nil {
		t.Error("the metrics of the services and those of the gateway need a PodMonitor each")
	}
}

func TestComposeWithTLSBetweenServices(t *testing.T) {
	c := decode(t, "compose.tls.yaml", read(t, "compose.tls.yaml"))[0]
	for name := range ports {
		s := c.object("services", name)
		if s == nil {
			t.Errorf("%s is not in compose.tls.yaml", name)
			continue
		}
		dir := s.text("environment", "SHOP_SERVICE_TLS")
		if want := fmt.Sprintf("[./secrets/tls/%s:%s:ro]", name, dir); dir == "" || fmt.Sprint(s.at("volumes")) != want {
			t.Errorf("%s: got the volumes %v, want %s", name, s.at("volumes"), want)
		}
		if got := s.text("environment", "SHOP_INSECURE"); got != "false" {
			t.Errorf("%s: got SHOP_INSECURE %q, want false", name, got)
		}
	}
}
