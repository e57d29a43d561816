// Package mongoevents keeps events in MongoDB, or a server that speaks its protocol. It needs no replica set and no
// transactions: an append is one document.
//
//	store, err := mongoevents.New(ctx, client.Database("orders"), mongoevents.Config{})
//	orders, err := eventstore.NewAggregate(store, decider, types, eventstore.AggregateConfig{Category: "order"})
//
// # Order
//
// A document's _id is the position of its first event, and the next document's _id is the position after its last one.
// So two appends that come at the same moment want the same _id: the index lets one of them in, and the other asks for
// the end again. An append is stored only after the one before it has been, so positions have no holes that are filled
// later: what a reader has passed is complete, and it meets all events of the store in one order, each stream's by
// version. When documents were removed, readers get ErrGap.
//
// The price is that appends go one after the other, over all streams and processes: some hundreds to a few thousand a
// second. Appends of one process wait for each other; those of several try again. Partition by database where that is
// too few.
//
// # Guarantees
//
// Those of package eventstore. Writes and reads are those of the majority where there is a replica set, whatever the
// client's defaults are: a position that was read does not come again with another event after a failover.
//
// What Config.OnAppend collects (driver.Collect, or the Publish of an outbox/mongooutbox over the collection
// sillar_events) lies in the append's own document, and is published from there.
//
// # What it does not do
//
// Delete empties the documents of a stream and leaves them, so that positions have no gap. An append joins no
// transaction: in the context of one it is refused (ErrTransaction), because it would hold up every
// other append until the commit. An append holds at most 15 MiB. A snapshot joins none either. Checkpoints do.
package mongoevents
