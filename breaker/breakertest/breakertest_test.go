package breakertest_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sillar-go/sillar/breaker/breakertest"
)

func TestLossyTransportFailsAtItsRate(t *testing.T) {
	var served atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served.Add(1) }))
	defer srv.Close()
	client := &http.Client{Transport: breakertest.Lossy(nil, 3, 0.4)}
	ok, unsent, lost := 0, 0, 0
	for range 200 {
		before := served.Load()
		res, err := client.Post(srv.URL+"/pay", "text/plain", strings.NewReader("x"))
		switch arrived := served.Load() > before; {
		case err == nil:
			ok++
			_ = res.Body.Close()
		case !errors.Is(err, breakertest.ErrInjected):
			t.Fatal(err)
		case arrived:
			lost++
		default:
			unsent++
		}
	}
	if ok < 90 || unsent < 20 || lost < 20 {
		t.Errorf("%d answered, %d not sent, %d lost, of 200 at a rate of 0.4", ok, unsent, lost)
	}
	client.CloseIdleConnections()
}
