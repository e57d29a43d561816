package integration

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/authn/jwks"
	"github.com/sillar-go/sillar/gateway"
)

// A gateway that cannot read the keys says so: were it 401, every client would forget its login.
func TestKeysOutOfReachAtTheGateway(t *testing.T) {
	quiet := slog.New(slog.DiscardHandler)
	keys := authn.Must(authn.NewKeySet(authn.NewMemoryKeys(), authn.KeyConfig{Logger: quiet}))
	issuer := authn.Must(authn.NewIssuer(keys, authn.NewMemoryTokens(), authn.IssuerConfig{Issuer: "https://shop",
		Logger: quiet}))
	pair, err := issuer.Issue(t.Context(), authn.Subject{ID: "ana"})
	if err != nil {
		t.Fatal(err)
	}
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Header.Get("X-User-ID"))
	}))
	defer service.Close()
	endpoint := httptest.NewServer(keys.Handler())
	set := jwks.Must(jwks.New(endpoint.URL, jwks.Config{Logger: quiet, MinInterval: time.Millisecond}))
	defer set.Close()
	v := authn.Must(authn.NewVerifier(set, authn.VerifierConfig{Issuer: "https://shop", Logger: quiet}))
	gw := gateway.Must(gateway.New(gateway.Config{Auth: v, Logger: quiet,
		Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{service.URL}}}}))
	defer gw.CloseIdleConnections()
	ask := func(token string) *httptest.ResponseRecorder {
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/a", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		gw.ServeHTTP(w, r)
		return w
	}
	if w := ask(pair.AccessToken); w.Code != 200 || w.Body.String() != "ana" {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	endpoint.Close()
	strangers := authn.Must(authn.NewKeySet(authn.NewMemoryKeys(), authn.KeyConfig{Logger: quiet}))
	other := authn.Must(authn.NewIssuer(strangers, authn.NewMemoryTokens(), authn.IssuerConfig{Issuer: "https://shop",
		Logger: quiet}))
	unknown, err := other.Issue(t.Context(), authn.Subject{ID: "ana"})
	if err != nil {
		t.Fatal(err)
	}
	if w := ask(unknown.AccessToken); w.Code != 503 || w.Header().Get("WWW-Authenticate") != "" ||
		w.Header().Get("Retry-After") == "" {
		t.Errorf("a key that may be new: %d %v", w.Code, w.Header())
	}
	if w := ask(pair.AccessToken); w.Code != 200 {
		t.Errorf("the known key: %d", w.Code)
	}
	if w := ask(pair.AccessToken + "x"); w.Code != 401 {
		t.Errorf("a token that is wrong whatever the keys are: %d", w.Code)
	}
}
