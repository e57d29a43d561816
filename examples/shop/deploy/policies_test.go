package deploy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// checkIngress checks that the world reaches every service by the gateway, and the gateway's own metrics not at all.
func checkIngress(t *testing.T, c cluster) {
	t.Helper()
	var paths []string
	if o := c["Ingress/shop"]; o != nil {
		for _, p := range o.list("spec", "rules", 0, "http", "paths") {
			p := object(p.(map[string]any))
			paths = append(paths, p.text("pathType")+" "+p.text("path"))
			if p.text("backend", "service", "name") != "shop-gateway" {
				t.Errorf("the Ingress leads to %v", p.at("backend"))
			}
		}
	} else if o := c["HTTPRoute/shop"]; o != nil {
		for _, m := range o.list("spec", "rules", 0, "matches") {
			m := object(m.(map[string]any))
			paths = append(paths, strings.TrimPrefix(m.text("path", "type"), "Path")+" "+m.text("path", "value"))
		}
		if number(o.at("spec", "rules", 0, "backendRefs", 0, "port")) != ports["gateway"] {
			t.Errorf("the HTTPRoute leads to %v", o.at("spec", "rules", 0, "backendRefs"))
		}
	}
	want := []string{"Exact /"}
	for name := range ports {
		if name != "gateway" {
			want = append(want, "Prefix /"+name)
		}
	}
	slices.Sort(paths)
	slices.Sort(want)
	if !slices.Equal(paths, want) {
		t.Errorf("the world reaches %v, want %v", paths, want)
	}
}

// callers lists the callers of each service; nil means all.
var callers = map[string][]string{"products": {"gateway", "orders"}, "orders": {"gateway"},
	"inventory": {"gateway", "orders", "products"},
	"payments":  {"gateway", "orders"}, "notifications": {"gateway"}, "users": nil}

func checkPolicies(t *testing.T, c cluster) {
	t.Helper()
	deny := c["NetworkPolicy/shop-default-deny"]
	if deny == nil || len(deny.object("spec", "podSelector")) != 0 ||
		fmt.Sprint(deny.at("spec", "policyTypes")) != "[Ingress Egress]" ||
		deny.at("spec", "ingress") != nil || deny.at("spec", "egress") != nil {
		t.Errorf("what is not allowed is not denied: %v", deny)
	}
	for name, who := range callers {
		for _, caller := range append(slices.Clone(who), "gateway") {
			if !opens(c["NetworkPolicy/shop-"+name].list("spec", "ingress"), "from", caller, ports[name]) {
				t.Errorf("%s does not let %s in", name, caller)
			}
			if !opens(c["NetworkPolicy/shop-"+caller].list("spec", "egress"), "to", name, ports[name]) {
				t.Errorf("%s is not let out to %s", caller, name)
			}
		}
		for other := range ports {
			if who != nil && !slices.Contains(who, other) && opens(c["NetworkPolicy/shop-"+name].list("spec", "ingress"), "from",
				other, ports[name]) {
				t.Errorf("%s lets %s in, who has no business there", name, other)
			}
		}
	}
	if !opens(c["NetworkPolicy/shop-users"].list("spec", "ingress"), "from", "orders", grpcPort) ||
		!opens(c["NetworkPolicy/shop-orders"].list("spec", "egress"), "to", "users", grpcPort) {
		t.Error("orders does not reach the gRPC of users")
	}
	for name := range ports { // everybody verifies tokens
		if !opens(c["NetworkPolicy/shop-users"].list("spec", "ingress"), "from", name, ports["users"]) ||
			!opens(c["NetworkPolicy/shop-all"].list("spec", "egress"), "to", "users", ports["users"]) {
			t.Errorf("%s does not reach the keys of users", name)
		}
	}
}

// opens says whether a list of rules has one between these pods on this port.
func opens(rules []any, side, name string, port int) bool {
	for _, r := range rules {
		rule := object(r.(map[string]any))
		there := slices.ContainsFunc(rule.list("ports"), func(p any) bool {
			return number(object(p.(map[string]any)).at("port")) == port
		})
		for _, peer := range rule.list(side) {
			sel := object(peer.(map[string]any)).object("podSelector")
			if sel == nil || !there {
				continue
			}
			if l := sel.text("matchLabels", "app.kubernetes.io/name"); l != "" && l != name {
				continue
			}
			if e := sel.list("matchExpressions"); len(e) > 0 && !slices.Contains(object(e[0].(map[string]any)).list("values"),
				any(name)) {
				continue
			}
			return true
		}
	}
	return false
}
