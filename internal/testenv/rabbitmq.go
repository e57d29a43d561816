package testenv

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
)

// RabbitMQ returns the URL of a vhost of the test's own.
func RabbitMQ(t testing.TB) string {
	t.Helper()
	u := rabbitmq.url(t)
	api := RabbitMQManagement(t)
	name := unique()
	if err := manage(api, http.MethodPut, "/api/vhosts/"+name, ""); err != nil {
		t.Fatalf("testenv: make a vhost: %v", err)
	}
	t.Cleanup(func() {
		if err := manage(api, http.MethodDelete, "/api/vhosts/"+name, ""); err != nil {
			t.Errorf("testenv: remove the vhost: %v", err)
		}
	})
	user := "guest"
	if u.User != nil {
		user = u.User.Username()
	}
	rights := `{"configure":".*","write":".*","read":".*"}`
	if err := manage(api, http.MethodPut, "/api/permissions/"+name+"/"+url.PathEscape(user), rights); err != nil {
		t.Fatalf("testenv: permissions on the vhost: %v", err)
	}
	own := *u
	own.Path = "/" + name
	return own.String()
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

func manage(api, method, path, body string) error {
	ctx, cancel := context.WithTimeout(context.Background(), setup)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, api+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	defer http.DefaultClient.CloseIdleConnections() // goroutines of idle connections would look like leaks
	text, _ := io.ReadAll(io.LimitReader(res.Body, 1<<10))
	if res.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s: %s", method, path, res.Status, text)
	}
	return nil
}
