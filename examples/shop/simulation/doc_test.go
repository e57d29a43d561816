// Package simulation runs the services of the shop in one process, in the virtual time of testing/synctest, while
// everything that they depend on fails: thousands of runs, each with the faults of its seed.
//
//	make simulate SEEDS=1000
//
// The services are those of the program, with HTTP, gRPC, JWKS and their own databases. Below them are
//
//   - a network in memory, whose latencies are drawn (network_test.go), with HTTP requests and responses that are lost
//     (breakertest.Lossy),
//   - SQLite in memory, which outlives the processes (database_test.go), with statements and commits that fail
//     (sqldbtest.Faulty),
//   - the broker in memory, with messages that are delayed, reordered and duplicated (messagingtest.Faulty).
//
// Services crash and are started again on the same databases (process_test.go). Customers place and cancel orders and
// try again until they have an answer (world_test.go). In the end what they were told is compared with what the
// databases hold (invariants_test.go).
//
// A seed always has the same faults: each is drawn by the seed, its place and how often the program came to the place.
// It does not always have the same trace, because Go schedules goroutines as it likes: a seed that failed fails again
// often, and not always. GOMAXPROCS=1 helps. The log of a failed run is kept.
//
// It does not simulate processes that are frozen and go on, clocks that differ, several replicas of a service, and the
// databases and brokers of production: the tests of each package and the shop's own do.
package simulation_test
