package benchmarks

import (
	"bufio"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	idleClients = 10_000
	slowClients = 1_000
)

// BenchmarkGatewayMemory measures the resident memory of proxies with 10,000 idle connections, each of which has had
// one answer, and with 1,000 clients that do not read an answer of 1 MiB. It runs once, whatever -benchtime says.
func BenchmarkGatewayMemory(b *testing.B) {
	up, _ := startProxy(b, "upstream", "")
	for _, name := range []string{"bare-pool", "sillar", "caddy", "nginx"} {
		b.Run(name, func(b *testing.B) {
			for kind, clients := range map[string]int{"idle": idleClients, "slow": slowClients} {
				p, missing := startProxy(b, name, up.addr)
				if missing != "" {
					b.Skip("not installed: ", missing)
				}
				path := "/users/api/v1/users/7"
				if kind == "slow" {
					path = "/users/large"
				}
				before := p.resident(b)
				connections := openClients(b, p, path, clients, kind == "idle")
				time.Sleep(time.Second) // answers fill the buffers
				used := p.resident(b) - before
				b.ReportMetric(float64(used)/float64(clients)/1024, kind+"-KiB/conn")
				b.ReportMetric(float64(p.resident(b))/(1<<20), kind+"-MiB")
				for _, c := range connections {
					_ = c.Close()
				}
			}
		})
	}
}

// openClients opens connections, a few at a time, each of which sends a request and, if read says so, reads the answer.
func openClients(b *testing.B, p *proxy, path string, number int, read bool) []net.Conn {
	b.Helper()
	request := []byte("GET " + path + " HTTP/1.1\r\nHost: shop.example\r\n\r\n")
	all := make([]net.Conn, number)
	errs := make([]error, number)
	places := make(chan struct{}, 32)
	var wg sync.WaitGroup
	for n := range all {
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			if all[n], errs[n] = net.Dial("tcp", p.addr); errs[n] != nil {
				return
			}
			if read {
				errs[n] = exchange(all[n], bufio.NewReaderSize(all[n], 512), request)
				return
			}
			_, errs[n] = all[n].Write(request)
			if errs[n] == nil { // the beginning of the answer
				_, errs[n] = io.ReadFull(all[n], make([]byte, 64))
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			b.Fatal(p.name, ": ", err)
		}
	}
	return all
}

// resident returns the resident memory of the proxy and of its children, in bytes.
func (p *proxy) resident(b *testing.B) (total int64) {
	b.Helper()
	own := strconv.Itoa(p.cmd.Process.Pid)
	files, err := filepath.Glob("/proc/[0-9]*/status")
	if err != nil || len(files) == 0 {
		b.Skip("there is no /proc here: ", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil { // it has ended
			continue
		}
		fields := map[string]string{}
		for line := range strings.Lines(string(text)) {
			name, value, _ := strings.Cut(line, ":")
			fields[name] = strings.TrimSuffix(strings.TrimSpace(value), " kB")
		}
		if fields["Pid"] != own && fields["PPid"] != own {
			continue
		}
		kib, err := strconv.ParseInt(fields["VmRSS"], 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		total += kib << 10
	}
	return total
}
