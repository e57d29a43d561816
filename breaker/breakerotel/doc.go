// Package breakerotel records what breakers do as OpenTelemetry metrics and span events.
//
//	cfg, err := breakerotel.Instrument(breaker.Config{Name: "billing"}, breakerotel.Config{})
//	...
//	b, err := breaker.New(cfg)
//
// Instruments: the counter sillar.breaker.calls, by breaker.name and breaker.outcome (success, failure, ignore, open,
// full, limited, overloaded; of a breaker that only observes, what it would have rejected too, beside the attempt), and
// the gauges sillar.breaker.state (0 closed, 1 half-open, 2 open) and sillar.breaker.limit (the adaptive limit, where
// there is one), by breaker.name. A Config with which a registry makes its breakers can be instrumented the same way;
// each key is a name of its own. After 4,096 names, further ones share the name (others).
//
// Do guards a call as breaker.Do does, and adds events to the span that is in the context: breaker.retry (with
// breaker.attempt and error.type, the type and never the text), breaker.hedge, breaker.rejected and breaker.gave_up
// (with breaker.reason: open, full, limited, overloaded, exhausted, budget, deadline, cancelled). They are added on the
// caller's goroutine, for a hook may come when the span has ended. The packages breakerhttp and breakergrpc add them
// themselves.
//
// It guarantees that hooks that the Config had are still called, and that no call waits for a metric: breakers report
// their hooks outside every call. Do allocates nothing when the first attempt succeeds. It makes no spans of its own.
package breakerotel
