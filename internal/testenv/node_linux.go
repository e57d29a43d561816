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
	epmd    *exec.Cmd
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
	n := &Node{program: serverProgram(t), dir: t.TempDir(), port: freePort(t)}
	epmdPort := freePort(t)
	n.name = fmt.Sprintf("sillar-test-%d@localhost", n.port)
	files := map[string]string{
		"rabbitmq.conf": fmt.Sprintf(
			"listeners.tcp.1 = 127.0.0.1:%d\ndisk_free_limit.absolute = 50MB\nlog.file.level = warning\n"+
				"max_message_size = %d\n",
			n.port,
			NodeMaxBody,
		),
		"plugins": "[].", "rabbitmq-env.conf": "",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(n.dir, name), []byte(text), 0o600); err != nil {
			t.Fatalf("testenv: %v", err)
		}
	}
	n.env = append(
		slices.DeleteFunc(
			os.Environ(),
			func(e string) bool { return strings.HasPrefix(e, "RABBITMQ_") || strings.HasPrefix(e, "ERL_") },
		),
		"HOME="+n.dir,
		"RABBITMQ_NODENAME="+n.name,
		"RABBITMQ_MNESIA_BASE="+n.dir,
		"RABBITMQ_LOG_BASE="+n.dir,
		"RABBITMQ_CONFIG_FILE="+filepath.Join(
			n.dir,
			"rabbitmq",
		),
		"RABBITMQ_CONF_ENV_FILE="+filepath.Join(n.dir, "rabbitmq-env.conf"),
		"RABBITMQ_ENABLED_PLUGINS_FILE="+filepath.Join(n.dir, "plugins"),
		"RABBITMQ_PID_FILE="+filepath.Join(n.dir, "pid"),
		fmt.Sprint("RABBITMQ_DIST_PORT=", freePort(t)),
		"ERL_EPMD_ADDRESS=127.0.0.1",
		fmt.Sprint("ERL_EPMD_PORT=", epmdPort),
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1}",
	)
	n.epmd = exec.Command("epmd", "-port", strconv.Itoa(epmdPort), "-address", "127.0.0.1")
	n.epmd.Env = n.env
	n.epmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := n.epmd.Start(); err != nil {
		t.Fatalf("testenv: epmd, which comes with Erlang: %v", err)
	}
	t.Cleanup(func() {
		n.Kill(t)
		_ = n.epmd.Process.Kill()
		_ = n.epmd.Wait()
	})
	n.Start(t)
	return n
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

// boot bounds how long a node may take.
const boot = 90 * time.Second

// Start starts the node again after Stop or Kill, and waits until it takes connections.
func (n *Node) Start(t testing.TB) {
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

// Stop ends the node in good order.
func (n *Node) Stop(t testing.TB) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(n.dir, "pid"))
	if err != nil {
		t.Fatalf("testenv: %v", err)
	}
	pid, err := strconv.Atoi(string(bytes.TrimSpace(text)))
	if err != nil || pid <= 1 {
		t.Fatalf("testenv: the node's pid is %q", text)
	}
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
