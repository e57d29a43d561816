package observability

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// spanCounts are the spans of all exporters, by what became of them.
type spanCounts struct {
	sent, failed, dropped prometheus.Counter
}

func newSpanCounts(reg prometheus.Registerer) (spanCounts, error) {
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "observability_spans_total",
		Help: "Spans that were sent to the exporters, failed there, or were dropped from a full queue",
	}, []string{"result"})
	return spanCounts{
			vec.WithLabelValues("sent"),
			vec.WithLabelValues("failed"),
			vec.WithLabelValues("dropped"),
		}, reg.Register(
			vec,
		)
}

// spanQueue is the queue in front of one exporter. It knows what becomes of each span: the SDK's own queue drops
// silently.
type spanQueue struct {
	sdktrace.SpanProcessor // the SDK's batches, whose queue is larger than max
	max                    int64
	waiting                atomic.Int64 // spans that are queued or being exported
	lost                   atomic.Int64 // spans that failed or were dropped
	closed                 atomic.Bool  // no more are taken
	logged                 int64        // how many of them the log has; under next
	next                   atomic.Int64 // when the log may have more, Unix nanoseconds
	counts                 spanCounts
	log                    *slog.Logger
}

// newSpanQueue returns the queue of an exporter, for size spans.
func newSpanQueue(e sdktrace.SpanExporter, size int, counts spanCounts, log *slog.Logger) *spanQueue {
	q := &spanQueue{max: int64(size), counts: counts, log: log}
	q.SpanProcessor = sdktrace.NewBatchSpanProcessor(
		&countingExporter{e, q},
		sdktrace.WithMaxQueueSize(size+sdktrace.DefaultMaxExportBatchSize),
	)
	return q
}

// OnEnd implements sdktrace.SpanProcessor.
func (q *spanQueue) OnEnd(s sdktrace.ReadOnlySpan) {
	if !s.SpanContext().IsSampled() {
		return
	}
	waiting, closed := q.waiting.Add(1), q.closed.Load() // in this order, so that Shutdown counts those it finds
	if waiting <= q.max && !closed {
		q.SpanProcessor.OnEnd(s)
		return
	}
	q.waiting.Add(-1)
	q.counts.dropped.Inc()
	why := "the queue is full"
	if closed {
		why = "they ended after Shutdown"
	}
	q.lose(1, why, nil)
}

// Shutdown implements sdktrace.SpanProcessor. Its error says how many spans were lost by it.
func (q *spanQueue) Shutdown(ctx context.Context) error {
	before := q.lost.Load()
	q.closed.Store(true)
	err := q.SpanProcessor.Shutdown(ctx)
	if left := q.waiting.Swap(0); left > 0 { // the exporter did not end in time
		q.counts.failed.Add(float64(left))
		q.lost.Add(left)
	}
	lost := q.lost.Load() - before
	if lost == 0 {
		return err
	}
	q.log.ErrorContext(
		ctx, "observability: spans were lost at shutdown", "lost", lost, "lost_in_all", q.lost.Load(), "error", err,
	)
	if err != nil {
		return fmt.Errorf("%d spans were lost: %w", lost, err)
	}
	return fmt.Errorf("%d spans were lost", lost)
}

// lose notes lost spans, and logs them once a minute at most.
func (q *spanQueue) lose(n int, why string, err error) {
	lost := q.lost.Add(int64(n))
	now, next := time.Now(), q.next.Load()
	if now.UnixNano() < next || !q.next.CompareAndSwap(next, now.Add(time.Minute).UnixNano()) {
		return
	}
	since := lost - q.logged
	q.logged = lost
	q.log.Warn("observability: spans are lost", "why", why, "error", err, "lost", since, "lost_in_all", lost)
}

// countingExporter counts what an exporter has done with the spans of a queue.
type countingExporter struct {
	sdktrace.SpanExporter
	q *spanQueue
}

// ExportSpans implements sdktrace.SpanExporter. It returns no error: OpenTelemetry's global handler need not say it
// again.
func (e *countingExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	valid := make([]sdktrace.ReadOnlySpan, len(spans)) // the SDK uses spans again
	for i, s := range spans {
		valid[i] = withValidText(s)
	}
	err := e.SpanExporter.ExportSpans(ctx, valid)
	if e.q.waiting.Add(-int64(len(spans))) < 0 { // after Shutdown, which has counted them
		e.q.waiting.Store(0)
		return nil
	}
	if err != nil {
		e.q.counts.failed.Add(float64(len(spans)))
		e.q.lose(len(spans), "the exporter failed", err)
		return nil
	}
	e.q.counts.sent.Add(float64(len(spans)))
	return nil
}
