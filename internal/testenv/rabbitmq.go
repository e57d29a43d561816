package testenv

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
)

// NodeMaxBody is the largest body that a Node takes, in bytes.
const NodeMaxBody = 1 << 20

// RabbitMQ returns the URL of a vhost and a user of the test's own.
func RabbitMQ(t testing.TB) string {
	t.Helper()
	u := rabbitmq.url(t)
	api := RabbitMQManagement(t)
	name := unique()
	for _, r := range []struct{ path, body string }{
		{"/api/vhosts/" + name, ""},
		{"/api/users/" + name, `{"password":"` + name + `","tags":""}`},
		{"/api/permissions/" + name + "/" + name, `{"configure":".*","write":".*","read":".*"}`},
	} {
		if err := manage(api, http.MethodPut, r.path, r.body); err != nil {
			t.Fatalf("testenv: make a vhost: %v", err)
		}
	}
	t.Cleanup(func() {
		err := errors.Join(
			manage(api, http.MethodDelete, "/api/vhosts/"+name, ""),
			manage(api, http.MethodDelete, "/api/users/"+name, ""),
		)
		if err != nil {
			t.Errorf("testenv: remove the vhost: %v", err)
		}
	})
	own := *u
	own.Path, own.User = "/"+name, url.UserPassword(name, name)
	return own.String()
}

// CloseConnections closes through the management API, as an operator does, all connections of a URL that RabbitMQ
// returned. It may be called from any goroutine.
func CloseConnections(t testing.TB, own string) error {
	t.Helper()
	u, err := url.Parse(own)
	if err != nil {
		return err
	}
	api := RabbitMQManagement(t)
	for try := 1; ; try++ { // the server trips over connections that end meanwhile
		err = manage(api, http.MethodDelete, "/api/connections/username/"+u.User.Username(), "")
		if err == nil || try == 10 {
			return err
		}
	}
}

// RabbitMQManagement returns the base URL of the management API, with credentials and without a trailing slash.
func RabbitMQManagement(t testing.TB) string {
	t.Helper()
	raw := os.Getenv("SILLAR_RABBITMQ_MANAGEMENT_URL")
	if raw == "" {
		u := *rabbitmq.url(t)
		u.Scheme, u.Host, u.Path = "http", u.Hostname()+":15672", ""
		raw = u.String()
	}
	return strings.TrimSuffix(raw, "/")
}

// RestrictTopics lets the user of a URL that RabbitMQ returned publish only topics that match a regular expression, to
// any exchange of the name.
func RestrictTopics(t testing.TB, own, exchange, write string) {
	t.Helper()
	u, err := url.Parse(own)
	if err != nil {
		t.Fatalf("testenv: %v", err)
	}
	rights := fmt.Sprintf(`{"exchange":%q,"write":%q,"read":".*"}`, exchange, write)
	if err := manage(RabbitMQManagement(t), http.MethodPut, "/api/topic-permissions"+u.EscapedPath()+"/"+u.User.Username(),
		rights); err != nil {
		t.Fatalf("testenv: topic permissions: %v", err)
	}
}

// Permissions sets what the user of a URL that RabbitMQ returned may configure, write and read: regular expressions.
func Permissions(t testing.TB, own, configure, write, read string) {
	t.Helper()
	u, err := url.Parse(own)
	if err != nil {
		t.Fatalf("testenv: %v", err)
	}
	rights := fmt.Sprintf(`{"configure":%q,"write":%q,"read":%q}`, configure, write, read)
	if err := manage(RabbitMQManagement(t), http.MethodPut, "/api/permissions"+u.EscapedPath()+"/"+u.User.Username(),
		rights); err != nil {
		t.Fatalf("testenv: permissions: %v", err)
	}
}

// management has no idle connections: their goroutines would look like leaks, and who closes those of a client that is
// shared breaks the requests of tests that run beside.
var management = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

func manage(api, method, path, body string) error {
	ctx, cancel := context.WithTimeout(context.Background(), setup)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, api+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := management.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(res.Body, 1<<10))
	if res.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s: %s", method, path, res.Status, text)
	}
	return nil
}
