// Package benchmarks compares packages of Sillar with their peers. It is a module of its own, so that programs that
// import Sillar do not load the peers. Package interop in it exchanges tokens with other implementations.
//
//	go test -run - -bench Breaker -cpu 1,2 -count 6 . | tee new.txt
//	go run golang.org/x/perf/cmd/benchstat@latest new.txt
//
// Compare numbers within one run only: the same machine is another one an hour later.
package benchmarks
