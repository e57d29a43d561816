package killtest_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sillar-go/sillar/internal/killtest"
)

func init() {
	killtest.Register("sleeper", func(args []string) error {
		fmt.Println("ready", args[0], os.Getpid())
		time.Sleep(time.Minute)
		return nil
	})
	killtest.Register("failing", func([]string) error { return errors.New("boom") })
}

func TestMain(m *testing.M) { killtest.Main(); os.Exit(m.Run()) }

func TestKillAndRestart(t *testing.T) {
	p := killtest.Start(t, "sleeper", "x")
	first := p.Line(t, "ready x")
	p.Kill()
	if got := p.Wait(t); !strings.Contains(got, "killed") {
		t.Fatalf("after Kill: %s", got)
	}
	if second := p.Restart(t).Line(t, "ready x"); second == first {
		t.Fatalf("the same process twice: %s", second)
	}
}

func TestOutputAndFailure(t *testing.T) {
	p := killtest.Start(t, "failing")
	if got := p.Wait(t); got != "exit: exit status 1" || !strings.Contains(p.Output(), "boom") {
		t.Fatalf("%s: %s", got, p.Output())
	}
}
