// Package observability shows what is going on in a service: JSON logs, Prometheus metrics and OpenTelemetry traces,
// tied together by a correlation id. It is for programs; libraries use slog and the OpenTelemetry API.
//
//	tel, err := observability.New(ctx, observability.Config{Service: "orders", Version: version})
//	defer tel.Shutdown(ctx)
//	mux := tel.Mux()
//	mux.HandleFunc("GET /orders/{id}", getOrder)
//	mux.Handle("GET /metrics", tel.MetricsHandler())
//	http.ListenAndServe(":8002", tel.Middleware(mux))
//	...
//	order, err := observability.TrackDependency(ctx, "mongodb", "get_order",
//		func(ctx context.Context) (Order, error) { ... })
//
// Spans go where Config.SpanExporters says; package otlp makes them from the environment. Package health answers
// probes and takes the service down in order. Package grpcotel is the same for gRPC.
//
// Routes are named by Mux. A plain http.ServeMux works too, by Routes where something in between copies the request,
// such as http.TimeoutHandler. Handlers of other routers, such as chi and gorilla/mux, call SetRoute. AddLogAttrs adds
// fields to the access log. Config.Registerer may be prometheus.DefaultRegisterer.
//
// # Guarantees
//
//   - New touches nothing global: several services may live in one process. InstallGlobals does, and Setup is both.
//   - Middleware is one pass: correlation id, span, http_requests_total, http_request_duration_seconds,
//     http_requests_in_progress and an access log. The endpoint is the pattern that was registered, whole; what matches
//     none is "unmatched". Series never grow with what clients send. Installed twice, it counts once.
//   - A panic is a 500 in the answer, the metric, the span and the log. When part of an answer is out already, the
//     connection is cut. http.ErrAbortHandler goes through.
//   - Handlers see exactly the optional interfaces of the server's ResponseWriter.
//   - A log line has the ids of its context at its root, once; no attribute takes their names.
//   - Queries and headers are in no log and no span. A Secret does not print.
//   - A collector that is down slows nothing: spans wait in a bounded queue, and what is lost is logged once a minute.
//
// # What it does not do
//
// It collects no logs: lines go to a writer, and an agent such as the OpenTelemetry Collector reads them there, so that
// a crash loses none of them. Package otlplog sends them over OTLP besides. It has no dashboards; docs/telemetry.md
// lists all that the library reports, with queries. With a plain http.ServeMux and without Routes, the endpoint is the
// innermost pattern whose mux saw the middleware's own request: http.StripPrefix and middleware that copies the request
// hide it.
package observability
