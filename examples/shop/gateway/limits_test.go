package gateway

import (
	"strings"
	"testing"

	"github.com/sillar-go/sillar/examples/shop/internal/platform"
	"github.com/sillar-go/sillar/gateway/redislimit"
)

func TestLimitsAreCountedWhereTheAddressSays(t *testing.T) {
	at := func(db string) *platform.Service { return &platform.Service{Config: platform.Config{DB: db}} }
	if l, err := limits(at("sqlite:/data/gateway.db")); l != nil || err != nil {
		t.Errorf("without Redis: %T, %v; want the gateway's own", l, err)
	}
	l, err := limits(at("redis://:secret@127.0.0.1:6379/0"))
	if _, ok := l.(*redislimit.Limiter); !ok || err != nil {
		t.Errorf("with Redis: %T, %v", l, err)
	}
	if _, err := limits(at("redis://:secret@127.0.0.1:x/0")); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("an address that cannot be read: %v, want an error without the password", err)
	}
}
