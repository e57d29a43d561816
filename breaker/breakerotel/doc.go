// Package breakerotel counts what breakers do, as OpenTelemetry metrics.
//
//	cfg, err := breakerotel.Instrument(breaker.Config{Name: "billing"}, breakerotel.Config{})
//	...
//	b, err := breaker.New(cfg)
//
// Instruments: the counter sillar.breaker.calls, by breaker.name and breaker.outcome (success, failure, ignore, open, full,
// limited), and the gauge sillar.breaker.state, by breaker.name (0 closed, 1 half-open, 2 open). A Config with which a
// registry makes its breakers can be instrumented the same way; each key is a name of its own.
//
// It guarantees that hooks that the Config had are still called, and that no call waits for a metric: breakers tell
// their hooks outside every call.
package breakerotel
