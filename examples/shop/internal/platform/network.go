package platform

import (
	"context"
	"net"
	"net/http"

	"google.golang.org/grpc"
)

// Network listens and connects: in tests one in memory, so that all services run in one process and in virtual time.
type Network interface {
	Listen(addr string) (net.Listener, error)
	DialContext(ctx context.Context, network, addr string) (net.Conn, error)
}

// Listen listens on the service's network.
func (c *Config) Listen(addr string) (net.Listener, error) {
	if c.Network != nil {
		return c.Network.Listen(addr)
	}
	return net.Listen("tcp", addr)
}

// transport returns a new transport over the service's network, with mutual TLS where the services have it.
func (c *Config) transport() *http.Transport {
	if c.ServiceTLS != nil {
		return c.ServiceTLS.Transport()
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	if c.Network != nil {
		t.DialContext = c.Network.DialContext
		t.Proxy = nil
	}
	return t
}

// GRPCTarget returns the target and the options with which a gRPC client reaches an address, host:port, over the
// service's network.
func (c *Config) GRPCTarget(addr string) (target string, opts []grpc.DialOption) {
	if c.Network == nil {
		return addr, nil
	}
	return "passthrough:///" + addr, []grpc.DialOption{
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			return c.Network.DialContext(ctx, "tcp", addr)
		}),
	}
}
