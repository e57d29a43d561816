package gateway

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sillar-go/sillar/internal/backoff"
)

// DNS is a Registry that asks the domain name system for addresses again and again. Go's resolver does not tell how
// long an answer is valid, so Interval takes the place of the records' TTL. A look that fails, or finds nothing,
// changes nothing: an outage of name servers is more likely than a service without any instance, and breakers and
// health checks avoid instances that are no more.
//
// The names of Kubernetes' headless services have an address for each ready pod.
type DNS struct {
	// SRV asks for SRV records, which have ports and weights: the upstream's host is the whole name of the record, such as
	// _http._tcp.users.default.svc.cluster.local. Targets of a higher priority are backups of those of a lower one.
	// Default: the addresses of the host, with the upstream's port.
	SRV bool
	// Interval is the time between two looks. Default 5 s. A refused connection makes the next look follow at once. A
	// shorter one asks the name servers more and follows changes sooner.
	Interval time.Duration
	// Network is "ip4" or "ip6" for addresses of one version, "ip" for all. Default: those of version 4 where the name has
	// any, else those of version 6.
	Network string
	// Resolver asks the name servers. Default net.DefaultResolver.
	Resolver *net.Resolver
}

// Watch implements Registry.
func (d DNS) Watch(ctx context.Context, upstream *url.URL, update func([]Instance)) error {
	interval := cmp.Or(d.Interval, 5*time.Second)
	for {
		asking, cancel := context.WithTimeout(ctx, max(interval, 5*time.Second))
		found, err := d.look(asking, upstream)
		cancel()
		switch {
		case err != nil:
			return err
		case len(found) == 0:
			return fmt.Errorf("%s has no addresses", upstream.Hostname())
		}
		update(found)
		if err := backoff.Sleep(ctx, interval); err != nil {
			return nil //nolint:nilerr // the watch was to end
		}
	}
}

func (d DNS) look(ctx context.Context, upstream *url.URL) ([]Instance, error) {
	resolver := cmp.Or(d.Resolver, net.DefaultResolver)
	if d.SRV {
		_, records, err := resolver.LookupSRV(ctx, "", "", upstream.Hostname())
		return targets(records), err
	}
	ips, err := resolver.LookupNetIP(ctx, cmp.Or(d.Network, "ip"), upstream.Hostname())
	if err != nil {
		return nil, err
	}
	if d.Network == "" && slices.ContainsFunc(ips, func(ip netip.Addr) bool { return ip.Unmap().Is4() }) {
		ips = slices.DeleteFunc(ips, func(ip netip.Addr) bool { return !ip.Unmap().Is4() })
	}
	port := cmp.Or(upstream.Port(), map[string]string{"https": "443"}[upstream.Scheme], "80")
	found := make([]Instance, 0, len(ips))
	for _, ip := range ips {
		found = append(found, Instance{Address: net.JoinHostPort(ip.Unmap().String(), port)})
	}
	// Name servers change the order from answer to answer.
	slices.SortFunc(found, func(a, b Instance) int { return strings.Compare(a.Address, b.Address) })
	return found, nil
}

// targets are the instances that records name. One that several name has the lowest of their priorities.
func targets(records []*net.SRV) []Instance {
	var found []Instance
	for _, r := range records { // by priority
		host := strings.TrimSuffix(r.Target, ".")
		address := net.JoinHostPort(host, strconv.Itoa(int(r.Port)))
		if host == "" || slices.ContainsFunc(found, func(i Instance) bool { return i.Address == address }) {
			continue
		}
		found = append(found, Instance{Address: address, Weight: max(1, int(r.Weight)), Priority: int(r.Priority)})
	}
	slices.SortFunc(found, func(a, b Instance) int { return strings.Compare(a.Address, b.Address) })
	return found
}
