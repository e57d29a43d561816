package testenv

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Node is a RabbitMQ server of a test's own, with ports, folders and a name of its own: what must not happen to the
// server that all tests share may happen to it. It ends with the test, and with the test's process.
type Node struct {
	program string // rabbitmq-server
	dir     string
	name    string
	port    int
	env     []string

	server *exec.Cmd
	stdin  io.Closer
}

// RabbitMQNode starts a node, which takes some ten seconds. It needs RabbitMQ's program on this machine: a server that
// is only reached, or runs in a container, cannot be killed from here. SILLAR_RABBITMQ_SERVER names the program, or
// says "none", which skips the test even under SILLAR_REQUIRE_SERVICES; `tools/services env` does so where the servers
// run in containers.
func RabbitMQNode(t testing.TB) *Node {
	t.Helper()
	n := newNode(t, newEPMD(t))
	n.configure(t, "")
	n.launch(t)
	n.Await(t)
	return n
}

// newEPMD starts a name server for nodes and returns its port.
func newEPMD(t testing.TB) int {
	t.Helper()
	port := freePort(t)
	epmd := exec.Command("epmd", "-port", strconv.Itoa(port), "-address", "127.0.0.1")
	epmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := epmd.Start(); err != nil {
		t.Fatalf("testenv: epmd, which comes with Erlang: %v", err)
	}
	t.Cleanup(func() {
		_ = epmd.Process.Kill()
		_ = epmd.Wait()
	})
	return port
}

// newNode makes a node that is not started yet.
func newNode(t testing.TB, epmdPort int) *Node {
	t.Helper()
	n := &Node{program: serverProgram(t), dir: t.TempDir(), port: freePort(t)}
	n.name = fmt.Sprintf("sillar-test-%d@localhost", n.port)
	n.env = append(slices.DeleteFunc(os.Environ(), func(e string) bool {
		return strings.HasPrefix(e, "RABBITMQ_") || strings.HasPrefix(e, "ERL_")
	}),
		"HOME="+n.dir, "RABBITMQ_NODENAME="+n.name, "RABBITMQ_MNESIA_BASE="+n.dir, "RABBITMQ_LOG_BASE="+n.dir,
		"RABBITMQ_CONFIG_FILE="+filepath.Join(n.dir, "rabbitmq"), "RABBITMQ_CONF_ENV_FILE="+filepath.Join(n.dir,
			"rabbitmq-env.conf"),
		"RABBITMQ_ENABLED_PLUGINS_FILE="+filepath.Join(n.dir, "plugins"), "RABBITMQ_PID_FILE="+filepath.Join(n.dir, "pid"),
		fmt.Sprint("RABBITMQ_DIST_PORT=", freePort(t)), "ERL_EPMD_ADDRESS=127.0.0.1", fmt.Sprint("ERL_EPMD_PORT=", epmdPort),
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1}")
	t.Cleanup(func() { n.Kill(t) })
	return n
}

// configure writes the node's files.
func (n *Node) configure(t testing.TB, conf string) {
	t.Helper()
	for name, text := range map[string]string{
		"rabbitmq.conf": fmt.Sprintf("listeners.tcp.1 = 127.0.0.1:%d\ndisk_free_limit.absolute = 50MB\nlog.file.level = "+
			"warning\n"+
			"max_message_size = %d\n%s", n.port, NodeMaxBody, conf),
		"plugins": "[].", "rabbitmq-env.conf": "", ".erlang.cookie": "sillar",
	} {
		if err := os.WriteFile(filepath.Join(n.dir, name), []byte(text), 0o400); err != nil {
			t.Fatalf("testenv: %v", err)
		}
	}
}

// serverProgram finds rabbitmq-server, or ends the test.
func serverProgram(t testing.TB) string {
	t.Helper()
	const variable = "SILLAR_RABBITMQ_SERVER"
	named := os.Getenv(variable)
	switch {
	case named == "none":
		t.Skip("no rabbitmq-server on this machine: " + variable + " says so")
	case named != "":
		return named
	}
	// Debian's own /usr/sbin/rabbitmq-server changes the user and takes no folders.
	found, _ := filepath.Glob("/usr/lib/rabbitmq/lib/*/sbin/rabbitmq-server")
	if len(found) == 0 {
		server{"rabbitmq-server on this machine", variable, ""}.missing(t, "below /usr/lib/rabbitmq")
	}
	return found[len(found)-1]
}

func freePort(t testing.TB) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("testenv: %v", err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

// URL returns where the node is reached.
func (n *Node) URL() string { return fmt.Sprintf("amqp://guest:guest@127.0.0.1:%d/", n.port) }

// Name returns the name by which the nodes of a cluster know it.
func (n *Node) Name() string { return n.name }

// boot bounds how long a node may take.
const boot = 90 * time.Second

// Host returns the node's host and port.
func (n *Node) Host() string { return fmt.Sprint("127.0.0.1:", n.port) }

// Start starts the node again after Stop or Kill, and waits until it takes connections.
func (n *Node) Start(t testing.TB) {
	t.Helper()
	n.launch(t)
	n.Await(t)
}

func (n *Node) launch(t testing.TB) {
	t.Helper()
	// The shell waits for the end of its input, which is the end of this process at the latest, and takes all with it.
	n.server = exec.Command("sh", "-c", `"$0" </dev/null & cat >/dev/null; kill -KILL 0`, n.program)
	n.server.Env, n.server.Dir = n.env, n.dir
	n.server.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	log, err := os.OpenFile(filepath.Join(n.dir, "out"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatalf("testenv: %v", err)
	}
	defer log.Close()
	n.server.Stdout, n.server.Stderr = log, log
	if n.stdin, err = n.server.StdinPipe(); err != nil {
		t.Fatalf("testenv: %v", err)
	}
	if err := n.server.Start(); err != nil {
		t.Fatalf("testenv: start a node: %v", err)
	}
}

// Await waits until the node takes connections.
func (n *Node) Await(t testing.TB) {
	t.Helper()
	hello := []byte("AMQP\x00\x00\x09\x01")
	for end := time.Now().Add(boot); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		c, err := net.DialTimeout("tcp", fmt.Sprint("127.0.0.1:", n.port), time.Second)
		if err != nil {
			continue
		}
		answer := make([]byte, 1)
		err = c.SetDeadline(time.Now().Add(5 * time.Second))
		if err == nil {
			_, err = c.Write(hello)
		}
		if err == nil {
			_, err = io.ReadFull(c, answer)
		}
		_ = c.Close()
		if err == nil && answer[0] == 1 { // a frame with a method: connection.start
			return
		}
	}
	out, _ := os.ReadFile(filepath.Join(n.dir, "out"))
	t.Fatalf("testenv: the node did not start in %v; it wrote:\n%s", boot, out)
}

// Freeze stops the node's process without ending it, until Thaw.
func (n *Node) Freeze(t testing.TB) {
	t.Helper()
	if err := syscall.Kill(n.pid(t), syscall.SIGSTOP); err != nil {
		t.Fatalf("testenv: freeze the node: %v", err)
	}
}

// Thaw lets the node's process go on.
func (n *Node) Thaw(t testing.TB) {
	t.Helper()
	if err := syscall.Kill(n.pid(t), syscall.SIGCONT); err != nil {
		t.Fatalf("testenv: thaw the node: %v", err)
	}
}

func (n *Node) pid(t testing.TB) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(n.dir, "pid"))
	if err != nil {
		t.Fatalf("testenv: %v", err)
	}
	pid, err := strconv.Atoi(string(bytes.TrimSpace(text)))
	if err != nil || pid <= 1 {
		t.Fatalf("testenv: the node's pid is %q", text)
	}
	return pid
}

// Stop ends the node in good order.
func (n *Node) Stop(t testing.TB) {
	t.Helper()
	pid := n.pid(t)
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatalf("testenv: stop the node: %v", err)
	}
	for end := time.Now().Add(boot); syscall.Kill(pid, 0) == nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("testenv: the node does not stop")
		}
	}
	n.Kill(t) // what is around it
}

// Kill ends the node with SIGKILL.
func (n *Node) Kill(t testing.TB) {
	t.Helper()
	if n.server == nil {
		return
	}
	_ = syscall.Kill(-n.server.Process.Pid, syscall.SIGKILL)
	_ = n.server.Wait()
	_ = n.stdin.Close()
	n.server = nil
	n.gone(t)
}

// gone waits until nothing listens any more: a process that is killed has its ports for a moment longer.
func (n *Node) gone(t testing.TB) {
	t.Helper()
	for end := time.Now().Add(boot); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		c, err := net.DialTimeout("tcp", fmt.Sprint("127.0.0.1:", n.port), time.Second)
		if err != nil {
			return
		}
		_ = c.Close()
	}
	t.Fatal("testenv: the node does not end")
}

// Log returns what the node has logged: warnings and errors.
func (n *Node) Log(t testing.TB) (log []byte) {
	t.Helper()
	files, _ := filepath.Glob(filepath.Join(n.dir, "*.log"))
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatalf("testenv: %v", err)
		}
		log = append(log, text...)
	}
	return log
}

// Control runs rabbitmqctl on the node.
func (n *Node) Control(t testing.TB, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), boot)
	defer cancel()
	cmd := exec.CommandContext(
		ctx,
		filepath.Join(filepath.Dir(n.program), "rabbitmqctl"),
		append([]string{"-n", n.name}, args...)...)
	cmd.Env = n.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("testenv: rabbitmqctl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}
