package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestHealthcheckExitCodes(t *testing.T) {
	hang := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ready":
		case "/moved":
			http.Redirect(w, r, "/ready", http.StatusFound)
		case "/hangs":
			<-hang
		default:
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(hang) })
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()

	for _, c := range []struct {
		name, url string
		code      int
		says      string
	}{
		{"ready", server.URL + "/ready", 0, ""},
		{"not ready", server.URL + "/draining", 1, "503"},
		{"a redirect", server.URL + "/moved", 1, "302"},
		{"no server", gone.URL + "/ready", 1, "refused"},
		{"no answer", server.URL + "/hangs", 1, "deadline"},
		{"no address", "::", 1, "healthcheck"},
	} {
		t.Run(c.name, func(t *testing.T) {
			begin := time.Now()
			cmd := exec.Command(os.Args[0], "healthcheck", "--url", c.url, "--timeout", "300ms")
			cmd.Env = append(os.Environ(), "SHOP_TEST_MAIN=1", "HTTP_PROXY="+gone.URL)
			out, _ := cmd.CombinedOutput()
			if code := cmd.ProcessState.ExitCode(); code != c.code || !strings.Contains(string(out), c.says) {
				t.Errorf("exit %d, want %d: %s", code, c.code, out)
			}
			if took := time.Since(begin); took > 10*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// The address can come from the environment, as a container's HEALTHCHECK has no arguments of its own.
func TestHealthcheckFromEnv(t *testing.T) {
	asked := make(chan string, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked <- r.URL.Path }))
	t.Cleanup(server.Close)
	t.Setenv("SHOP_URL", server.URL+"/ready")
	cmd := root()
	cmd.SetArgs([]string{"healthcheck"})
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	if path := <-asked; path != "/ready" {
		t.Fatalf("asked for %s", path)
	}
}
