package breakergrpc

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"google.golang.org/grpc/metadata"
)

// KeyFunc returns what divides the calls to a target among several breakers: the method, a tenant. "" is the breaker of
// the target itself. ctx carries the outgoing metadata, method is "/package.Service/Method". Each value makes a
// breaker: beyond 1,024 of them, calls pass unguarded; see breaker.NewRegistry.
type KeyFunc func(ctx context.Context, method string) string

// MethodKey is a KeyFunc by the method.
func MethodKey(_ context.Context, method string) string { return method }

// ServiceKey is a KeyFunc by the service of the method.
func ServiceKey(_ context.Context, method string) string {
	service, _, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	return service
}

// MetadataKey returns a KeyFunc by the first value of outgoing metadata, such as the one that names the tenant.
func MetadataKey(name string) KeyFunc {
	return func(ctx context.Context, _ string) string {
		md, _ := metadata.FromOutgoingContext(ctx)
		if v := md.Get(name); len(v) > 0 {
			return v[0]
		}
		return ""
	}
}

// maxKey bounds the memory that a key takes, which may come from a request.
const maxKey = 128

// key returns the name of the breaker of a call: the target, and what Config.Key makes of the call.
func (g *Guard) key(ctx context.Context, target, method string) string {
	if g.cfg.Key == nil {
		return target
	}
	k := g.cfg.Key(ctx, method)
	if k == "" {
		return target
	}
	if len(k) > maxKey {
		sum := sha256.Sum256([]byte(k))
		k = strings.ToValidUTF8(k[:maxKey-17], "") + "~" + hex.EncodeToString(sum[:8])
	}
	return target + " " + k
}
