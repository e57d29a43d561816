package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sillar-go/sillar/internal/testenv"
)

// process is the shop in a process of its own.
type process struct {
	t    *testing.T
	name string
	cmd  *exec.Cmd
	log  string
	done chan error
	once sync.Once
}

func start(t *testing.T, dir string, args ...string) *process {
	t.Helper()
	return startProgram(t, os.Args[0], dir, args...)
}

func startProgram(t *testing.T, program, dir string, args ...string) *process {
	t.Helper()
	p := &process{t: t, name: args[0], log: filepath.Join(dir, args[0]+".log"), done: make(chan error, 1)}
	p.cmd = exec.Command(program, args...)
	p.cmd.Env = append(os.Environ(), "SHOP_TEST_MAIN=1")
	f, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p.cmd.Stdout, p.cmd.Stderr = f, f
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.done <- p.cmd.Wait() }()
	t.Cleanup(func() {
		p.stop(syscall.SIGKILL)
		if t.Failed() {
			log, _ := os.ReadFile(p.log)
			t.Logf("%s:\n%s", p.name, tail(log, 15))
		}
	})
	return p
}

// stop sends a signal and waits for the end.
func (p *process) stop(sig os.Signal) (err error) {
	p.once.Do(func() {
		_ = p.cmd.Process.Signal(sig)
		select {
		case err = <-p.done:
		case <-time.After(40 * time.Second):
			_ = p.cmd.Process.Kill()
			err = fmt.Errorf("%s did not end within 40 s of %v", p.name, sig)
		}
	})
	return err
}

// offsets are those that freeOffset has returned: what it found free is not yet in use.
var offsets struct {
	sync.Mutex
	last int
}

// freeOffset finds an offset at which all ports of the shop are free, another one each time.
func freeOffset(t *testing.T) int {
	t.Helper()
	offsets.Lock()
	defer offsets.Unlock()
	offsets.last = freeOffsetFrom(t, max(2000+os.Getpid()%3000, offsets.last+97))
	return offsets.last
}

// fleet is the shop as seven processes.
type fleet struct {
	t         *testing.T
	dir       string
	offset    int
	args      map[string][]string
	processes map[string]*process
}

// startFleet starts the services, and waits until each is ready.
func startFleet(t *testing.T, broker, mongo string) *fleet {
	t.Helper()
	f := &fleet{t, t.TempDir(), freeOffset(t), map[string][]string{}, map[string]*process{}}
	for _, b := range services {
		args := append(f.arguments(b.name), "--broker", broker)
		switch b.name {
		case "gateway":
		case "users":
			args = append(args, "--db", mongo)
		default:
			args = append(args, "--db", testenv.Postgres(t))
		}
		f.args[b.name] = args
		f.start(b.name)
	}
	for _, p := range f.all() {
		ready(t, p, f.at(p.name))
	}
	return f
}

// arguments are those of a service, but for its broker and its database.
func (f *fleet) arguments(service string) []string {
	return []string{service, "--port-offset", strconv.Itoa(f.offset), "--service-secret", strings.Repeat("s", 40),
		"--breaker-open", "1s", "--data", f.dir}
}

func (f *fleet) start(name string) { f.processes[name] = start(f.t, f.dir, f.args[name]...) }

func (f *fleet) at(name string) string {
	return "http://127.0.0.1:" + strconv.Itoa(ports[name]+f.offset)
}

// all are the processes in the order in which they were started first.
func (f *fleet) all() (list []*process) {
	for _, b := range services {
		if p := f.processes[b.name]; p != nil {
			list = append(list, p)
		}
	}
	return list
}
