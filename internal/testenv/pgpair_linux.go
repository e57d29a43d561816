package testenv

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// PostgresPair is a PostgreSQL of a test's own with a synchronous standby: what a commit has acknowledged is on both.
// It ends with the test.
type PostgresPair struct {
	bin     string
	dir     string
	as      *syscall.Credential // PostgreSQL does not run as root
	servers [2]*exec.Cmd
	ports   [2]int
}

// PostgresCluster starts a primary and its standby on loopback, which takes some ten seconds. It needs PostgreSQL's
// programs on this machine; SILLAR_POSTGRES_BIN names their folder, or says "none", which skips the test.
func PostgresCluster(t testing.TB) *PostgresPair {
	t.Helper()
	dir, err := os.MkdirTemp("", "sillar-pg") //nolint:usetesting // another user must reach it
	if err != nil {
		t.Fatalf("testenv: %v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	p := PostgresAt(t, dir)
	p.run(t, "pg_basebackup", "-R", "-X", "stream", "-c", "fast", "-D", p.data(1), "-d",
		fmt.Sprintf("host=127.0.0.1 port=%d user=postgres application_name=s2", p.ports[0]))
	p.start(t, 1)
	p.SQL(t, "ALTER SYSTEM SET synchronous_standby_names = '*'")
	p.SQL(t, "SELECT pg_reload_conf()")
	return p
}

// PostgresAt starts a primary alone, with its data in a folder of the caller's, as PostgresCluster does.
func PostgresAt(t testing.TB, dir string) *PostgresPair {
	t.Helper()
	const variable = "SILLAR_POSTGRES_BIN"
	bin := os.Getenv(variable)
	if bin == "none" {
		t.Skip("no PostgreSQL on this machine: " + variable + " says so")
	}
	if found, _ := filepath.Glob("/usr/lib/postgresql/*/bin"); bin == "" && len(found) > 0 {
		bin = found[len(found)-1]
	}
	if bin == "" {
		Missing(t, "no PostgreSQL programs on this machine: apt-get install postgresql, or name their folder in "+variable)
	}
	p := &PostgresPair{bin: bin, dir: dir, ports: [2]int{freePort(t), freePort(t)}}
	t.Cleanup(func() {
		p.kill(0)
		p.kill(1)
	})
	if os.Getuid() == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			t.Fatalf("testenv: PostgreSQL does not run as root: %v", err)
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		p.as = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(dir, uid, gid); err != nil {
			t.Fatalf("testenv: %v", err)
		}
	}
	p.run(t, "initdb", "-D", p.data(0), "-A", "trust", "-U", "postgres", "--no-sync")
	p.append(t, 0, "postgresql.conf", "listen_addresses = '127.0.0.1'\nunix_socket_directories = ''\nwal_log_hints = on\n"+
		"max_connections = 400\nfsync = off\nwal_level = logical\n")
	p.append(t, 0, "pg_hba.conf", "host replication all 127.0.0.1/32 trust\n")
	p.start(t, 0)
	return p
}

func (p *PostgresPair) data(i int) string { return filepath.Join(p.dir, strconv.Itoa(i)) }

func (p *PostgresPair) append(t testing.TB, i int, file, text string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(p.data(i), file), os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(text)
		_ = f.Close()
	}
	if err != nil {
		t.Fatalf("testenv: %v", err)
	}
}

func (p *PostgresPair) run(t testing.TB, program string, args ...string) (out string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), boot)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(p.bin, program), args...)
	cmd.Dir, cmd.SysProcAttr = p.dir, &syscall.SysProcAttr{Credential: p.as}
	text, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("testenv: %s: %v\n%s", program, err, text)
	}
	return string(text)
}

func (p *PostgresPair) start(t testing.TB, i int) {
	t.Helper()
	cmd := exec.Command(filepath.Join(p.bin, "postgres"), "-D", p.data(i), "-p", strconv.Itoa(p.ports[i]))
	cmd.Dir, cmd.SysProcAttr = p.dir, &syscall.SysProcAttr{Credential: p.as, Pdeathsig: syscall.SIGKILL}
	log, err := os.Create(filepath.Join(p.dir, fmt.Sprint("log", i)))
	if err != nil {
		t.Fatalf("testenv: %v", err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatalf("testenv: start PostgreSQL: %v", err)
	}
	p.servers[i] = cmd
	ready := []string{"-q", "-h", "127.0.0.1", "-p", strconv.Itoa(p.ports[i])}
	for end := time.Now().Add(boot); exec.Command(filepath.Join(p.bin, "pg_isready"), ready...).Run() != nil; {
		if time.Now().After(end) {
			text, _ := os.ReadFile(log.Name())
			t.Fatalf("testenv: PostgreSQL did not start in %v; it wrote:\n%s", boot, text)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// SQL runs a statement at the server that takes writes.
func (p *PostgresPair) SQL(t testing.TB, statement string) {
	t.Helper()
	p.run(t, "psql", "-q", "-v", "ON_ERROR_STOP=1", "-c", statement, p.URL("postgres"))
}

// Value returns the only value of a query in a database.
func (p *PostgresPair) Value(t testing.TB, database, query string) string {
	t.Helper()
	return strings.TrimSpace(p.run(t, "psql", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", query, p.URL(database)))
}

// URL returns where a database is reached, at whichever server takes writes.
func (p *PostgresPair) URL(database string) string {
	return fmt.Sprintf("postgresql://postgres@127.0.0.1:%d,127.0.0.1:%d/%s"+
		"?target_session_attrs=read-write&connect_timeout=5", p.ports[0], p.ports[1], cmp.Or(database, "postgres"))
}

// Failover kills the primary and promotes the standby, which then runs alone.
func (p *PostgresPair) Failover(t testing.TB) {
	t.Helper()
	p.kill(0)
	p.Promote(t)
}

// Freeze stops the primary and its children without ending them, until the test ends: connections to it are made, and
// nothing is answered. The standby waits for Promote.
func (p *PostgresPair) Freeze(t testing.TB) {
	t.Helper()
	primary := p.servers[0].Process
	if err := primary.Signal(syscall.SIGSTOP); err != nil {
		t.Fatalf("testenv: freeze PostgreSQL: %v", err)
	}
	for _, pid := range children(primary.Pid) {
		_ = syscall.Kill(pid, syscall.SIGSTOP)
	}
}

// Promote makes the standby the primary, which then runs alone.
func (p *PostgresPair) Promote(t testing.TB) {
	t.Helper()
	p.run(t, "pg_ctl", "promote", "-w", "-D", p.data(1))
}

// kill ends a server and its children with SIGKILL.
func (p *PostgresPair) kill(i int) {
	cmd := p.servers[i]
	if cmd == nil {
		return
	}
	p.servers[i] = nil
	_ = cmd.Process.Signal(syscall.SIGSTOP) // so that it makes no more of them
	for _, pid := range children(cmd.Process.Pid) {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

func children(parent int) (pids []int) {
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		after := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		if len(after) > 1 && after[1] == strconv.Itoa(parent) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(f)))
			pids = append(pids, pid)
		}
	}
	return pids
}
