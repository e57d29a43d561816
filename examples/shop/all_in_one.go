package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	"go.opentelemetry.io/otel"

	"github.com/sillar-go/sillar/examples/shop/gateway"
	"github.com/sillar-go/sillar/examples/shop/internal/platform"
	"github.com/sillar-go/sillar/examples/shop/inventory"
	"github.com/sillar-go/sillar/examples/shop/live"
	"github.com/sillar-go/sillar/examples/shop/notifications"
	"github.com/sillar-go/sillar/examples/shop/orders"
	"github.com/sillar-go/sillar/examples/shop/payments"
	"github.com/sillar-go/sillar/examples/shop/products"
	"github.com/sillar-go/sillar/examples/shop/users"
	"github.com/sillar-go/sillar/observability/otlp"
)

// build makes a service and stores its address for its peers.
type build struct {
	name string
	make func(context.Context, platform.Config) (*platform.Service, error)
	at   func(*platform.Peers) *string
}

// services lists the services in start order: each may use the addresses of those before it.
var services = []build{
	{"users", users.New, func(p *platform.Peers) *string { return &p.Users }},
	{"inventory", inventory.New, func(p *platform.Peers) *string { return &p.Inventory }},
	{"products", products.New, func(p *platform.Peers) *string { return &p.Products }},
	{"payments", payments.New, func(p *platform.Peers) *string { return &p.Payments }},
	{"notifications", notifications.New, func(p *platform.Peers) *string { return &p.Notifications }},
	{"orders", orders.New, func(p *platform.Peers) *string { return &p.Orders }},
	{"gateway", gateway.New, nil},
}

// Seeds are the users of a demonstration shop.
var seeds = []platform.SeedUser{
	{Username: "admin", Email: "admin@example.com", Password: "admin-password", Roles: []string{"admin"}},
	{Username: "ana", Email: "ana@example.com", Password: "ana-password", Roles: []string{"customer"}},
}

// users returns the users to create at start.
func (o *options) users() []platform.SeedUser {
	var list []platform.SeedUser
	if o.admin != "" {
		list = append(list, platform.SeedUser{Username: "admin", Email: "admin@example.com", Password: o.admin,
			Roles: []string{"admin"}})
	}
	if o.seed { // existing users are not changed
		list = append(list, seeds...)
	}
	return list
}

// config returns the configuration of one service.
func (o *options) config(common platform.Config, name string) platform.Config {
	cfg := common
	cfg.Name, cfg.Addr, cfg.GRPCAddr = name, o.addr(name), o.addr("grpc")
	cfg.DB = o.db
	if cfg.DB == "" {
		cfg.DB = "sqlite:" + filepath.Join(o.data, name+".db")
	}
	if name == "gateway" && cfg.TLS != nil {
		cfg.TLSAddr = o.listen(tlsPort)
	}
	if name == "gateway" {
		cfg.Routes = o.routes
	}
	if name == "users" {
		cfg.Users = o.users()
	}
	cfg.Peers = o.peers
	cfg.Tokens.JWKS, cfg.Tokens.Insecure = o.peers.Users+"/.well-known/jwks.json", o.insecure
	return cfg
}

// allInOne runs all services in one process.
type allInOne struct {
	services []*platform.Service
	parts    *parts
	page     bool // the gateway has the live page
}

// newAllInOne makes all services, on free ports or on those of the options.
func newAllInOne(ctx context.Context, o *options) (h *allInOne, err error) {
	if o.db != "" {
		return nil, errors.New("--db is for a single service: together, each has a SQLite file of its own in --data")
	}
	p, err := o.open(ctx, "shop", true, filepath.Join(o.data, "shop.log"))
	if err != nil {
		return nil, err
	}
	h = &allInOne{parts: p}
	var page *live.Page
	// otherwise other machines could reach what is reserved for operators
	if o.broker == "memory:" && live.Loopback(o.host) {
		page = live.New(p.config.Broker, o.faults)
		p.config.Broker, p.config.LogWriter, p.config.OnSaga = page.Broker(), page.LogWriter(p.config.LogWriter), page.OnSaga
	}
	defer func() {
		if err != nil {
			for _, s := range h.services {
				s.Abandon(ctx)
			}
			err = errors.Join(err, p.Close())
		}
	}()
	if err := o.openTLS(p); err != nil {
		return h, err
	}
	for _, b := range services {
		cfg := o.config(p.config, b.name)
		if cfg.SpanExporters, err = otlp.FromEnv(ctx); err != nil {
			return h, err
		}
		s, err := b.make(ctx, cfg)
		if err != nil {
			return h, fmt.Errorf("%s: %w", b.name, err)
		}
		h.services = append(h.services, s)
		if b.at != nil {
			*b.at(&o.peers) = s.URL()
		}
		if b.name == "users" {
			o.peers.UsersGRPC = s.Peers.UsersGRPC
		}
	}
	// What belongs to the process and not to one service, such as the broker, reports at the
	// gateway.
	otel.SetMeterProvider(h.services[len(h.services)-1].Tel.MeterProvider)
	if page != nil {
		page.Attach(h.services)
		h.page = true
	}
	return h, nil
}

// URL returns the address of the gateway.
func (h *allInOne) URL() string { return h.services[len(h.services)-1].URL() }

// TLSURL returns the address of the gateway with TLS, "" without TLS.
func (h *allInOne) TLSURL() string { return h.services[len(h.services)-1].TLSURL() }

// Run runs all services until ctx ends or one of them fails. Then it stops them one after the other, the gateway first,
// so that no service calls one that has stopped.
func (h *allInOne) Run(ctx context.Context) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	errs := make([]error, len(h.services))
	stops := make([]context.CancelFunc, len(h.services))
	ended := make([]chan struct{}, len(h.services))
	var wg sync.WaitGroup
	for i, s := range h.services {
		own, stop := context.WithCancel(context.WithoutCancel(ctx))
		stops[i], ended[i] = stop, make(chan struct{})
		wg.Go(func() {
			defer close(ended[i])
			if errs[i] = s.Run(own); errs[i] != nil {
				fail(errs[i])
			}
		})
	}
	<-ctx.Done()
	for i := len(h.services) - 1; i >= 0; i-- {
		stops[i]()
		<-ended[i]
	}
	wg.Wait()
	return errors.Join(errors.Join(errs...), h.parts.Close())
}
