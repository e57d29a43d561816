package benchmarks

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sillar-go/sillar/authn"
)

// gatewayClients is how many connections send requests, each one after another.
const gatewayClients = 16

// BenchmarkGateway sends requests through proxies that are processes of their own, and reads their CPU time from the
// kernel. The machine is shared by the clients, the proxy and the service, so requests a second say less than
// proxy-µs/op does.
func BenchmarkGateway(b *testing.B) {
	up, _ := startProxy(b, "upstream", "")
	token := proxyToken(b)
	for _, name := range []string{"bare", "bare-pool", "sillar", "sillar-jwt", "sillar-jwt-uncached", "sillar-log",
		"caddy", "nginx", "naive", "fastapi"} {
		p, missing := startProxy(b, name, up.addr)
		b.Run(name, func(b *testing.B) {
			if missing != "" {
				b.Skip("not installed: ", missing)
			}
			drive(b, p, token)
		})
	}
}

func proxyToken(b *testing.B) string {
	keys, err := authn.NewSecretKeySet([]byte(proxySecret))
	if err != nil {
		b.Fatal(err)
	}
	issuer := authn.Must(authn.NewIssuer(keys, authn.NewMemoryTokens(), authn.IssuerConfig{Issuer: authnIssuer,
		Audience: []string{authnAudience}, TTL: time.Hour}))
	pair, err := issuer.Issue(context.Background(), authn.Subject{ID: "01932d0c-7c8e-7000-8000-000000000001",
		Roles: []string{"customer"}})
	if err != nil {
		b.Fatal(err)
	}
	return pair.AccessToken
}

// drive sends b.N requests.
func drive(b *testing.B, p *proxy, token string) {
	request := fmt.Appendf(nil,
		"GET /users/api/v1/users/7 HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: bench\r\nAccept: "+
			"application/json\r\nAuthorization: Bearer %s\r\n\r\n", token)
	var next atomic.Int64
	took := make([][]time.Duration, gatewayClients)
	var wg sync.WaitGroup
	begin := make(chan struct{})
	for n := range gatewayClients {
		c, err := net.Dial("tcp", p.addr)
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		r := bufio.NewReader(c)
		if err := exchange(c, r, request); err != nil { // it is warm now
			b.Fatal(p.name, ": ", err)
		}
		wg.Go(func() {
			<-begin
			for next.Add(1) <= int64(b.N) {
				start := time.Now()
				if err := exchange(c, r, request); err != nil {
					b.Error(p.name, ": ", err)
					return
				}
				took[n] = append(took[n], time.Since(start))
			}
		})
	}
	used := p.cpu(b)
	b.ResetTimer()
	close(begin)
	wg.Wait()
	b.StopTimer()
	used = p.cpu(b) - used
	all := slices.Concat(took...)
	if len(all) == 0 {
		b.Fatal("no answers")
	}
	slices.Sort(all)
	b.ReportMetric(float64(used.Nanoseconds())/1000/float64(b.N), "proxy-µs/op")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
	b.ReportMetric(float64(all[len(all)/2].Nanoseconds())/1000, "p50-µs")
	b.ReportMetric(float64(all[len(all)*99/100].Nanoseconds())/1000, "p99-µs")
}

func exchange(c net.Conn, r *bufio.Reader, request []byte) error {
	if _, err := c.Write(request); err != nil {
		return err
	}
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		return err
	}
	n, err := io.Copy(io.Discard, res.Body)
	if err == nil && (res.StatusCode != http.StatusOK || n < 80) {
		err = fmt.Errorf("%s, %d bytes", res.Status, n)
	}
	return err
}
