package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/sillar-go/sillar/authn/secrets"
	"github.com/sillar-go/sillar/authn/secrets/vault"
	"github.com/sillar-go/sillar/examples/shop/internal/platform"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/jetstream"
	"github.com/sillar-go/sillar/messaging/kafka"
	"github.com/sillar-go/sillar/messaging/memory"
	"github.com/sillar-go/sillar/messaging/rabbitmq"
	"github.com/sillar-go/sillar/observability"
)

// options holds the values of the flags.
type options struct {
	host       string
	portOffset int
	data       string
	db         string
	broker     string
	log        string
	logLevel   string
	secret     string
	keysSecret string
	admin      string
	smtp       string
	drainDelay time.Duration
	breaker    time.Duration
	faults     bool
	seed       bool
	insecure   bool

	routes string // of the gateway alone

	tlsCert, tlsKey, tlsClientCA string
	tlsDev                       bool
	serviceTLS                   string // a folder

	peers platform.Peers
}

func (o *options) register(f *pflag.FlagSet) {
	o.registerPlaces(f)
	f.StringVar(&o.admin, "first-admin-password", "",
		"make the user admin with this password, where there is none; a reference as --service-secret is")
	f.StringVar(&o.smtp, "smtp", "",
		"mail server: smtp://user:password@host:port (default: notifications are kept and shown)")
	f.DurationVar(&o.drainDelay, "drain-delay", 0, "how long to keep serving after /ready reports not ready")
	f.DurationVar(&o.breaker, "breaker-open", 30*time.Second, "how long breakers between services stay open")
	f.BoolVar(&o.faults, "faults", true, "let administrators inject faults into the payment processor")
	f.BoolVar(&o.seed, "seed", true, "make the users admin and ana, and a catalogue, where there is none")
	f.BoolVar(&o.insecure, "insecure", false,
		"read the keys of the users service by http from another machine too: only on a network that no attacker can reach")
	f.StringVar(&o.tlsCert, "tls-cert", "",
		"certificate of the gateway, PEM: it listens on 8443 too, with TLS; a newer file is loaded without a restart")
	f.StringVar(&o.tlsKey, "tls-key", "", "its key")
	f.StringVar(&o.tlsClientCA, "tls-client-ca", "", "admit on 8443 only clients with a certificate of these authorities")
	f.BoolVar(&o.tlsDev, "tls-dev", false,
		"the same with a certificate of a new development authority, in the folder tls of --data")
	f.StringVar(&o.serviceTLS, "service-tls", "",
		"mutual TLS between the services, with tls.crt, tls.key and ca.crt of this folder, the layout of cert-manager; "+
			"newer files are loaded without a restart; http:// addresses of services become https://")
	for _, p := range []struct {
		to         *string
		name, port string
	}{{&o.peers.Users, "users", "8000"}, {&o.peers.Products, "products", "8001"}, {&o.peers.Orders, "orders", "8002"},
		{&o.peers.Inventory, "inventory", "8003"}, {&o.peers.Payments, "payments", "8004"},
		{&o.peers.Notifications, "notifications", "8005"}} {
		f.StringVar(p.to, p.name+"-url", "", "address of the "+p.name+" service (default: http://127.0.0.1:"+p.port+
			" and the offset)")
	}
	f.StringVar(&o.peers.UsersGRPC, "users-grpc", "",
		"address of the users service's gRPC (default: 127.0.0.1:50051 and the offset)")
}

// registerPlaces adds the flags that say where the shop listens and keeps its data.
func (o *options) registerPlaces(f *pflag.FlagSet) {
	f.StringVar(&o.host, "host", "127.0.0.1", "address to listen on")
	f.IntVar(&o.portOffset, "port-offset", 0, "offset added to every port; -1 picks free ports")
	f.StringVar(&o.data, "data", "",
		"folder for databases and keys; they are kept when the shop ends (default: a temporary one)")
	f.StringVar(&o.db, "db", "",
		"database: sqlite:FILE, postgres://..., for users mongodb://.../NAME, for the gateway redis://..., where several "+
			"gateways count limits (default: SQLite in --data, and limits in the gateway)")
	f.StringVar(&o.broker, "broker", "memory:", "broker: memory:, amqp://..., nats://... (JetStream), or kafka://...")
	f.StringVar(&o.log, "log", "",
		"where the JSON log goes: a file, stderr, stdout or none (default: shop.log in --data, stdout for a single service)")
	f.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&o.secret, "service-secret", "",
		"what the services sign their own tokens with, 32 bytes or more; a reference as env:NAME, file:/path or "+
			"vault://mount/path#key (default: one of its own, for one process)")
	f.StringVar(&o.keysSecret, "keys-secret", "",
		"keep the signing keys of users in its database, encrypted with this secret of 32 bytes or more, so that "+
			"replicas share them; a reference as --service-secret is (default: a file in --data, for one process)")
}

// aliases lists further environment variables, which tutorials of this architecture use.
var aliases = map[string][]string{
	"users-url": {"USER_SERVICE_URL"}, "products-url": {"PRODUCT_SERVICE_URL"}, "orders-url": {"ORDER_SERVICE_URL"},
	"inventory-url": {"INVENTORY_SERVICE_URL"}, "payments-url": {"PAYMENT_SERVICE_URL"},
	"notifications-url": {"NOTIFICATION_SERVICE_URL"},
	"db":                {"MONGODB_URI"}, "broker": {"RABBITMQ_URI"}, "service-secret": {"JWT_SECRET_KEY"},
}

// fromEnv sets flags that the command line does not set from the environment.
func fromEnv(f *pflag.FlagSet) (err error) {
	f.VisitAll(func(fl *pflag.Flag) {
		if fl.Changed || fl.Name == "help" {
			return
		}
		names := append([]string{"SHOP_" + strings.ToUpper(strings.ReplaceAll(fl.Name, "-", "_"))}, aliases[fl.Name]...)
		for _, name := range names {
			if v := os.Getenv(name); v != "" {
				if serr := f.Set(fl.Name, v); serr != nil {
					err = errors.Join(err, fmt.Errorf("environment variable %s: %w", name, serr))
				}
				return
			}
		}
	})
	return err
}

// ports lists the ports of the services. 50051 is the gRPC port of users.
var ports = map[string]int{"gateway": 8080, "users": 8000, "products": 8001, "orders": 8002, "inventory": 8003,
	"payments": 8004, "notifications": 8005, "grpc": 50051}

// tlsPort is the gateway's with TLS.
const tlsPort = 8443

func (o *options) addr(name string) string { return o.listen(ports[name]) }

func (o *options) listen(port int) string {
	if o.portOffset < 0 {
		return net.JoinHostPort(o.host, "0")
	}
	return net.JoinHostPort(o.host, strconv.Itoa(port+o.portOffset))
}

// fillPeers completes the addresses that were not given.
func (o *options) fillPeers() {
	def := func(to *string, name, scheme string) {
		if *to == "" {
			*to = scheme + net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[name]+max(o.portOffset, 0)))
		}
		if rest, plain := strings.CutPrefix(*to, "http://"); plain && o.serviceTLS != "" {
			*to = "https://" + rest
		}
	}
	p := &o.peers
	def(&p.Users, "users", "http://")
	def(&p.Products, "products", "http://")
	def(&p.Orders, "orders", "http://")
	def(&p.Inventory, "inventory", "http://")
	def(&p.Payments, "payments", "http://")
	def(&p.Notifications, "notifications", "http://")
	def(&p.UsersGRPC, "grpc", "")
}

// release is set by the linker where a build knows its version and its source is no checkout: in the image.
var release string

func version() string {
	if release != "" {
		return release
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "devel"
}

// parts holds what the services share, and what must be closed after them.
type parts struct {
	config platform.Config
	log    *slog.Logger // of what belongs to no single service
	close  []func() error
}

// open makes the common parts for a service, or for all services in one process. own means that no service outside this
// process shares the secret and the broker.
func (o *options) open(ctx context.Context, service string, own bool, logDefault string) (p *parts, err error) {
	p = &parts{config: platform.Config{Version: version(), Data: o.data, DrainDelay: o.drainDelay,
		BreakerOpenFor: o.breaker, Faults: o.faults}}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.logLevel)); err != nil {
		return p, fmt.Errorf("--log-level: %w", err)
	}
	p.config.LogLevel = level
	if p.config.LogWriter, err = p.logWriter(o.log, logDefault); err != nil {
		return p, err
	}
	p.log = slog.New(observability.NewLogHandler(p.config.LogWriter, observability.LogConfig{Service: service,
		Level: level}))
	resolver, err := newResolver()
	if err != nil {
		return p, err
	}
	resolve := func(flag, ref string) (string, error) {
		s, err := resolver.Get(ctx, ref)
		if err != nil {
			return "", fmt.Errorf("--%s: %w", flag, err)
		}
		return s.Reveal(), nil
	}
	if err := o.secrets(p, own, resolve); err != nil {
		return p, err
	}
	if o.serviceTLS != "" {
		if p.config.ServiceTLS, err = platform.OpenServiceTLS(o.serviceTLS, p.log); err != nil {
			return p, fmt.Errorf("--service-tls: %w", err)
		}
		p.close = append(p.close, p.config.ServiceTLS.Close)
	}
	broker, err := resolve("broker", o.broker)
	if err != nil {
		return p, err
	}
	if p.config.Broker, err = openBroker(broker, own, p.log); err != nil {
		return p, err
	}
	p.close = append(p.close, p.config.Broker.Close)
	return p, nil
}

// secrets fills in what flags name by reference.
func (o *options) secrets(p *parts, own bool, resolve func(flag, ref string) (string, error)) error {
	var err error
	if o.db != "" {
		if o.db, err = resolve("db", o.db); err != nil {
			return err
		}
	}
	if o.admin != "" {
		// A file that is not there means none: manifests name it whether the secret has it or not.
		ref := o.admin
		if o.admin, err = resolve("first-admin-password", ref); err != nil && !noFile(ref, err) {
			return err
		}
	}
	if o.keysSecret != "" {
		secret, err := resolve("keys-secret", o.keysSecret)
		if err != nil {
			return err
		}
		p.config.KeysSecret = []byte(secret)
	}
	if o.smtp != "" {
		if p.config.SMTP, err = resolve("smtp", o.smtp); err != nil && !noFile(o.smtp, err) {
			return err
		}
	}
	switch {
	case o.secret != "":
		secret, err := resolve("service-secret", o.secret)
		if err != nil {
			return err
		}
		p.config.Tokens.Secret = []byte(secret)
	case own:
		p.config.Tokens.Secret = make([]byte, 32)
		_, _ = rand.Read(p.config.Tokens.Secret) // never fails
	default:
		return errors.New("services in processes of their own need the same --service-secret (or SHOP_SERVICE_SECRET), " +
			"32 bytes or more")
	}
	return nil
}

// noFile reports whether err says that the file of a reference does not exist.
func noFile(ref string, err error) bool {
	return strings.HasPrefix(ref, "file:") && errors.Is(err, secrets.ErrNotFound)
}

func newResolver() (*secrets.Resolver, error) {
	cfg := secrets.Config{AllowPlain: true, Sources: map[string]secrets.Source{"env": secrets.Env{},
		"file": secrets.File{}}}
	if addr := os.Getenv("VAULT_ADDR"); addr != "" {
		v, err := vault.New(vault.Config{Address: addr, Auth: vault.Token(os.Getenv("VAULT_TOKEN"))})
		if err != nil {
			return nil, err
		}
		cfg.Sources["vault"] = v
	}
	return secrets.NewResolver(cfg)
}

// keepEvents is for how long JetStream and Kafka keep events, as long as the inboxes remember them.
const keepEvents = 7 * 24 * time.Hour

func openBroker(dsn string, own bool, logger *slog.Logger) (messaging.Broker, error) {
	switch {
	case dsn == "memory:" && own:
		return memory.New(memory.Config{Source: "shop", Logger: logger})
	case dsn == "memory:":
		return nil,
			errors.New("services in processes of their own need a broker between them: --broker amqp://..., nats://... or " +
				"kafka://...")
	case strings.HasPrefix(dsn, "nats://"), strings.HasPrefix(dsn, "tls://"):
		// Services start in any order: the stream keeps events for groups that are not there yet.
		return jetstream.New(dsn, jetstream.Config{Source: "shop", Name: "shop", Logger: logger, Keep: keepEvents})
	case strings.HasPrefix(dsn, "kafka://"), strings.HasPrefix(dsn, "kafkas://"):
		return kafka.New(dsn, kafka.Config{Source: "shop", Name: "shop", Logger: logger, Keep: keepEvents,
			SessionTimeout: 10 * time.Second, RevokeWait: 5 * time.Second}) // a service that was killed is replaced soon
	}
	return rabbitmq.New(dsn, rabbitmq.Config{Source: "shop", Name: "shop", Logger: logger})
}

func (p *parts) logWriter(where, fallback string) (io.Writer, error) {
	if where == "" {
		where = fallback
	}
	switch where {
	case "stdout":
		return os.Stdout, nil
	case "stderr":
		return os.Stderr, nil
	case "none":
		return io.Discard, nil
	}
	f, err := os.OpenFile(filepath.Clean(where), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("--log: %w", err)
	}
	p.close = append(p.close, f.Close)
	return f, nil
}

// Close closes what open opened, in reverse order.
func (p *parts) Close() error {
	var errs []error
	for i := len(p.close) - 1; i >= 0; i-- {
		errs = append(errs, p.close[i]())
	}
	return errors.Join(errs...)
}
