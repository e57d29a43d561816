// Package health answers whether a service is alive and ready, and takes it down in order. It needs the standard
// library only.
//
//	h, err := health.New(health.Config{Service: "orders"})
//	h.Add("postgresql", db.Ping)
//	h.Add("payments", breakerState, health.Degraded())
//	mux.Handle("GET /health", h.Health())
//	mux.Handle("GET /ready", h.Ready())
//
//	err = health.Run(ctx, health.Drain{Health: h, Delay: 5 * time.Second},
//		health.Phase{Name: "http", Stop: server.Shutdown, Timeout: 10 * time.Second},
//		health.Phase{Name: "consumers", Stop: stopConsumers, Timeout: 5 * time.Second},
//		health.Phase{Name: "telemetry", Stop: tel.Shutdown, Timeout: 3 * time.Second})
//
// # Guarantees
//
//   - Checks run with a timeout each, at most once per Config.CacheFor whatever is asked, and one run serves all who
//     wait for it. A check that panics or hangs has failed; it is not started again before it has returned.
//   - /health answers 200 as long as the process answers at all: a dependency that is down is no reason to kill it.
//   - /ready answers 503 from the first signal on, before anything stops. Checks that only Degraded speak of never make
//     a service unready.
//   - Texts of errors are shown under ?verbose only when Config.Details allows it: they may name what strangers should
//     not know.
//   - Run's phases run in order, each within its bound, and their sum is checked against the grace period at the start.
//     A second signal ends the process at once.
package health
