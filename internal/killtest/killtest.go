// Package killtest runs a part of a test in a process of its own that can be killed with SIGKILL and started again. The
// process is the test's own binary.
//
//	func TestMain(m *testing.M) { killtest.Main(); os.Exit(m.Run()) }
//
//	func init() { killtest.Register("relay", func(args []string) error { ... }) }
//
//	p := killtest.Start(t, "relay", dsn)
//	p.Line(t, "ready")
//	p.Kill()
package killtest

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

const variable = "SILLAR_KILLTEST"

var programs = map[string]func(args []string) error{}

// Register names a function that a process runs. Call it from init.
func Register(name string, run func(args []string) error) { programs[name] = run }

// Main runs the function and exits when this process was made by Start. TestMain calls it first.
func Main() {
	name := os.Getenv(variable)
	if name == "" {
		return
	}
	run := programs[name]
	if run == nil {
		fmt.Fprintf(os.Stderr, "killtest: nothing is registered as %q\n", name)
		os.Exit(2)
	}
	// A parent that ends closes the pipe: nothing stays behind.
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(3)
	}()
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "killtest:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Process is a running process. It is killed when the test ends.
type Process struct {
	name  string
	args  []string
	cmd   *exec.Cmd
	stdin io.Closer
	done  chan struct{}

	mu    sync.Mutex
	lines []string
	state string
}

// Start runs what is registered under name.
func Start(t testing.TB, name string, args ...string) *Process {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatalf("killtest: %v", err)
	}
	cmd := exec.Command(exe, args...)
	cmd.Env = append(os.Environ(), variable+"="+name)
	out, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatalf("killtest: %v", err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("killtest: %v", err)
	}
	p := &Process{name: name, args: args, cmd: cmd, stdin: stdin, done: make(chan struct{})}
	go func() {
		err := cmd.Wait()
		p.mu.Lock()
		p.state = fmt.Sprint("exit: ", err)
		p.mu.Unlock()
		_ = w.Close()
	}()
	go func() {
		defer close(p.done)
		for s := bufio.NewScanner(out); s.Scan(); {
			p.mu.Lock()
			p.lines = append(p.lines, s.Text())
			p.mu.Unlock()
		}
	}()
	t.Cleanup(p.Kill)
	return p
}

// Kill sends SIGKILL and waits for the end. What has ended already stays so.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
	_ = p.stdin.Close()
}

// Restart kills the process and starts it again with the same arguments.
func (p *Process) Restart(t testing.TB) *Process {
	t.Helper()
	p.Kill()
	return Start(t, p.name, p.args...)
}

// Wait waits for the process to end by itself and returns how it did.
func (p *Process) Wait(t testing.TB) string {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		t.Fatalf("killtest: %s does not end; it wrote:\n%s", p.name, p.Output())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state
}

// Output returns what was written so far.
func (p *Process) Output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines, "\n")
}

const patience = 30 * time.Second

// Line waits for a line that begins with prefix and returns it.
func (p *Process) Line(t testing.TB, prefix string) string {
	t.Helper()
	find := func() (string, bool) {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, l := range p.lines {
			if strings.HasPrefix(l, prefix) {
				return l, true
			}
		}
		return "", false
	}
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if l, ok := find(); ok {
			return l
		}
		select {
		case <-p.done:
			if l, ok := find(); ok {
				return l
			}
			t.Fatalf("killtest: %s ended without a line %q; it wrote:\n%s", p.name, prefix, p.Output())
		default:
		}
		if time.Now().After(end) {
			t.Fatalf("killtest: %s wrote no line %q, but:\n%s", p.name, prefix, p.Output())
		}
	}
}
