package main

import (
	"bytes"
	"testing"
)

func TestTablesAreWrittenFromResults(t *testing.T) {
	var got bytes.Buffer
	tables(&got, `goos: linux
pkg: github.com/sillar-go/sillar/authn
BenchmarkVerify/HS256/golang-jwt-2   1   9000 ns/op   3784 B/op   82 allocs/op
BenchmarkVerify/HS256/verify-2       1   2000 ns/op   3296 B/op   41 allocs/op
BenchmarkVerify/HS256/verify-2       1   3000 ns/op   3296 B/op   41 allocs/op
BenchmarkVerify/HS256/verify-2       1   9999 ns/op   3296 B/op   41 allocs/op
BenchmarkVerify/EdDSA/golang-jwt-2   1   1000000 ns/op   1 B/op   1 allocs/op
PASS
pkg: github.com/sillar-go/sillar/gateway
BenchmarkProxy/bare-2   1   500 ns/op   100.0 MB/s   7 B/op   3 allocs/op
BenchmarkProxy/gateway-2   1   1000 ns/op   50.0 MB/s   8 B/op   4 allocs/op
BenchmarkAlone-2   1   1 ns/op
`)
	const want = `
## authn

| benchmark | time | bytes | allocations | of ours |
|---|---:|---:|---:|---:|
| Verify / HS256 / golang-jwt-2 | 9.00 µs | 3784 | 82 | 3.00 |
| Verify / HS256 / verify-2 | 3.00 µs | 3296 | 41 | 1.00 |
| Verify / EdDSA / golang-jwt-2 | 1.00 ms | 1 | 1 |  |

## gateway

| benchmark | time | bytes | allocations | of ours |
|---|---:|---:|---:|---:|
| Proxy / bare-2 | 500.0 ns | 7 | 3 | 0.50 |
| Proxy / gateway-2 | 1.00 µs | 8 | 4 | 1.00 |
| Alone-2 | 1.0 ns | 0 | 0 |  |
`
	if got.String() != want {
		t.Errorf("got\n%s\nwant\n%s", got.String(), want)
	}
}
