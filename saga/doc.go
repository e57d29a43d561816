// Package saga runs transactions over several services: steps in order, compensations in reverse, persisted after
// every step, resumed after a crash, shared by several orchestrators.
//
//	var PlaceOrder = saga.Define[Order]("place-order", 1,
//		saga.Step("reserve-inventory", reserve).Compensate(release),
//		saga.Step("process-payment", pay).Compensate(refund).Timeout(5*time.Second).
//			Retry(5, saga.Exponential(time.Second, time.Minute)),
//		saga.Pivot("confirm-order", confirm),
//		saga.Retriable("commit-reservation", commit),
//	)
//
//	o, err := saga.New(store, saga.Config{}, PlaceOrder)
//	go o.Run(ctx)
//	h, err := PlaceOrder.Start(ctx, o, "order-42", order) // idempotent by id; joins the transaction in ctx
//	order, err = h.Wait(ctx)
//
// A handler is func(ctx, *Call, *S) error. It changes a copy of the state, which is kept when it returns nil.
//
// # Guarantees
//
//   - Intent is persisted before an effect, of compensations too. An attempt ends as success; as rejected (Reject),
//     known to have had no effect; as not attempted (NotAttempted); or, for any other error, timeout, panic, crash or
//     lost lease, in doubt. A step in doubt is compensated too, and Call.Certain reports that to the compensation.
//   - Steps, then at most one pivot, then retriable steps. Waits (Await, AwaitEach, Sleep) and a Parallel may stand
//     before or after the pivot. A saga that waits is a row in the store and takes no slot. Either the signal or the
//     timeout counts, never both; the sender of a signal that comes too late gets ErrTooLate.
//   - After the pivot nothing is compensated: a step is retried, then the saga is stuck. A pivot in doubt is retried
//     with the same key; while it is in doubt nothing is compensated.
//   - Compensations run in reverse, each with a retry budget and a timeout of its own. One that keeps failing leaves
//     the saga stuck, never compensated; the others still run (StopOnFailure opts out).
//   - Leases belong to an orchestrator. Every takeover raises a fence; every write checks fence and revision; a
//     zombie's write gets ErrFenced, and it runs no further step. Where the store's answer to a start, a claim or a
//     last write was lost, the orchestrator goes on under a new name, and what the old one may own without running it
//     is free as soon as the steps that run under it have ended.
//   - The idempotency key of a step, sagaID/step/do or sagaID/step/undo, is the same on every attempt. With package
//     barrier a participant applies each key once, in any order of arrival.
//   - A node claims only the definitions that it has registered; others are left alone.
//
// # What it does not do
//
// It has no loops and no branches that depend on the state: a step that has nothing to do returns nil. A saga that
// other sagas are part of starts them as steps, by ids of its own, and awaits their signals: see the example
// ChildSagas.
//
// It gives no isolation: other transactions see what a running saga has done so far. Handlers must be idempotent by
// Call.Key, by package barrier or by themselves. It moves no data between services: handlers do.
//
// The pattern: H. Garcia-Molina, K. Salem, "Sagas", SIGMOD 1987.
package saga
