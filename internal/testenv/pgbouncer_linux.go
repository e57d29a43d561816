package testenv

import (
	"cmp"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// PgBouncer starts a pgbouncer in transaction mode before a database of Postgres, and returns that database's URL
// through it. Where the program is not installed it skips the test, or fails it under SILLAR_REQUIRE_SERVICES.
// SILLAR_PGBOUNCER names the program.
func PgBouncer(t testing.TB, dsn string) string {
	t.Helper()
	program, err := exec.LookPath(cmp.Or(os.Getenv("SILLAR_PGBOUNCER"), "pgbouncer"))
	if err != nil {
		program, err = exec.LookPath("/usr/sbin/pgbouncer") // which is not on the PATH of users
	}
	if err != nil {
		Missing(t, "no pgbouncer: apt-get install pgbouncer, or tools/services up as root, or name it in SILLAR_PGBOUNCER")
	}
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatalf("testenv: %v", err)
	}
	as := "user=" + u.User.Username()
	if password, ok := u.User.Password(); ok {
		as += " password=" + password
	}
	port, upstream := freePort(t), u.Port()
	if upstream == "" {
		upstream = "5432"
	}
	dir, err := os.MkdirTemp("", "pgbouncer") //nolint:usetesting // another user must reach it
	if err != nil {
		t.Fatalf("testenv: %v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	ini := fmt.Sprintf("[databases]\n%s = host=%s port=%s %s\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %d\n"+
		"unix_socket_dir =\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 4\nmax_client_conn = 500\n",
		u.Path[1:], u.Hostname(), upstream, as, port)
	file := filepath.Join(dir, "pgbouncer.ini")
	if err := os.WriteFile(file, []byte(ini), 0o644); err != nil {
		t.Fatalf("testenv: %v", err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatalf("testenv: %v", err)
	}
	cmd := exec.Command(program, "-q", file)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if os.Getuid() == 0 { // it does not run as root
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("testenv: start pgbouncer: %v", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", address)
		if err == nil {
			_ = c.Close()
			break
		}
		if time.Now().After(end) {
			t.Fatalf("testenv: pgbouncer does not listen: %v", err)
		}
	}
	u.Host = address
	return u.String()
}
