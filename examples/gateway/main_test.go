package main

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestGatewayExampleServesAndEnds(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, l) }()
	base := "http://" + l.Addr().String()
	get := func(token string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), "GET", base+"/stock/lamps", nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		req.Header.Set("X-User-ID", "root") // which a client must not say
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, _ := io.ReadAll(res.Body)
		return res.StatusCode, string(text)
	}
	if status, _ := get(""); status != 401 {
		t.Errorf("without a token: got %d, want 401", status)
	}
	res, err := http.PostForm(base+"/users/token", url.Values{"grant_type": {"password"}, "username": {"ana"},
		"password": {"secret"}})
	if err != nil {
		t.Fatal(err)
	}
	var pair struct {
		Token string `json:"access_token"`
	}
	err = json.NewDecoder(res.Body).Decode(&pair)
	_ = res.Body.Close()
	if err != nil || pair.Token == "" {
		t.Fatalf("login: %s, %v", res.Status, err)
	}
	for range 20 { // one of two instances is broken: no caller notices
		if status, text := get(pair.Token); status != 200 || !strings.Contains(text, "for u1") {
			t.Fatalf("got %d %q", status, text)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	stop()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(15 * time.Second):
		t.Fatal("the gateway does not end")
	}
}
