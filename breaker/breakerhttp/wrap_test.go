package breakerhttp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sillar-go/sillar/breaker"
	"github.com/sillar-go/sillar/breaker/breakerhttp"
)

// sdk is a third party's: its HTTP client can be replaced, as in most SDKs.
type sdk struct {
	BaseURL    string
	HTTPClient *http.Client
}

// signing is the transport of the SDK's own client.
type signing struct{ base http.RoundTripper }

func (s signing) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Set("Authorization", "Bearer secret")
	return s.base.RoundTrip(req)
}

func newSDK(url string) *sdk {
	return &sdk{url, &http.Client{Transport: signing{http.DefaultTransport}, Timeout: 30 * time.Second}}
}

// Save puts an object.
func (s *sdk) Save(ctx context.Context, name, text string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, s.BaseURL+"/objects/"+name, strings.NewReader(text))
	if err != nil {
		return err
	}
	res, err := s.HTTPClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("sdk: %s", res.Status)
	}
	return nil
}

// The HTTP client of a third-party SDK gets a breaker and retries. A PUT is retried, because its body can be read
// again.
func ExampleWrap() {
	asked := 0
	storage := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		if asked++; asked < 3 || string(text) != "hello" || r.Header.Get("Authorization") == "" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer storage.Close()

	client := newSDK(storage.URL)
	guarded, err := breakerhttp.Wrap(client.HTTPClient, breakerhttp.Config{
		Breaker: breaker.Config{Name: "storage", Retry: breaker.Retry{Attempts: 3,
			Backoff: breaker.Exponential(time.Millisecond, time.Second)}},
		Propagate: func(string) bool { return false }, // a third party has no use for our trace ids
	})
	if err != nil {
		panic(err)
	}
	client.HTTPClient = guarded

	fmt.Println(client.Save(context.Background(), "greeting", "hello"), asked)
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	// Output: <nil> 3
}

func TestWrapKeepsTheClient(t *testing.T) {
	jar, _ := cookiejar.New(nil)
	stop := errors.New("no redirects")
	own := &http.Client{Jar: jar, Timeout: time.Minute, Transport: &http.Transport{}, CheckRedirect: func(*http.Request,
		[]*http.Request) error {
		return stop
	}}
	before := own.Transport
	got, err := breakerhttp.Wrap(own, breakerhttp.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if got == own || own.Transport != before || got.Jar != jar || got.Timeout != time.Minute ||
		got.CheckRedirect(nil, nil) != stop {
		t.Errorf("got %+v, of %+v", got, own)
	}
	if _, err := breakerhttp.Wrap(nil, breakerhttp.Config{}); err != nil {
		t.Errorf("nil: %v", err)
	}
	if _, err := breakerhttp.Wrap(nil, breakerhttp.Config{MaxHosts: -1}); err == nil {
		t.Error("a bad Config: no error")
	}
}
